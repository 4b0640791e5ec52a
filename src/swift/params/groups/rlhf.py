"""Alignment by preferences and rewards."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Alias, Auto, Bare, Basic, OneOf, Ours, Range
from swift.params.frozen import Frozen


class Rlhf(Frozen):
    """Alignment by preferences and rewards."""

    rlhf_type: Annotated[Literal["dpo", "orpo", "simpo", "kto", "cpo", "rm", "ppo", "grpo"], Basic()] = "dpo"
    """Alignment algorithm."""
    ref_model_type: Annotated[str | None, OneOf("models")] = None
    """model_type of the reference model; None means the trained model. Not used by cpo, simpo, orpo."""
    ref_model_id_or_path: str | None = None
    """Local path or id of the reference model."""
    ref_model_revision: str | None = None
    """Revision of the reference model; None as for the trained model."""
    precompute_ref_log_probs: Annotated[Auto, Ours(), Bare("true")] = "AUTO"
    """Compute the reference's log-probabilities of all rows once, keep them beside the token cache, and train without
    the reference in memory. AUTO does it where nothing in them can change and it saves work."""
    beta: Annotated[float | None, Range(0)] = None
    """Strength of the KL regularization; None means 2.0 for simpo, 0.04 for grpo and 0.1 otherwise. GRPO with 0 has no
    reference."""
    label_smoothing: Annotated[float, Range(0, 1)] = 0.0
    """DPO label smoothing, usually between 0 and 0.5."""
    loss_type: str | None = None
    """Loss variant; None means sigmoid for dpo and cpo, simpo for simpo, grpo for grpo (or dr_grpo, dapo)."""
    rpo_alpha: Annotated[float, Basic()] = 1.0
    """DPO: weight of the added SFT loss (total = KL loss + rpo_alpha * SFT loss)."""
    cpo_alpha: float = 1.0
    """CPO/SimPO: weight of the NLL term."""
    simpo_gamma: float = 1.0
    """SimPO: reward margin, 0.5 to 1.5 advised."""
    desirable_weight: float = 1.0
    """KTO: weight of desirable responses."""
    undesirable_weight: float = 1.0
    """KTO: weight of undesirable responses; desirable_weight * n_d / (undesirable_weight * n_u) is best kept in 1 to
    4/3."""
    reward_model_id_or_path: str | None = None
    """PPO, GRPO: path of the reward model, with the value head weights (value_head.safetensors or value_head.bin)."""
    reward_model_type: Annotated[str | None, OneOf("models")] = None
    """PPO, GRPO: model_type of the reward model."""
    reward_model_revision: str | None = None
    """PPO, GRPO: revision of the reward model."""
    num_ppo_epochs: Annotated[int, Ours(), Range(1)] = 4
    """PPO: how often the answers of a roll-out are trained on."""
    num_mini_batches: Annotated[int, Ours(), Range(1)] = 1
    """PPO, GRPO: optimizer steps that share the answers of a roll-out in each of its epochs. A roll-out has so many
    times the rows of a step."""
    missing_eos_penalty: Annotated[float | None, Ours(), Range(0)] = None
    """PPO: what is taken off the score of an answer that did not come to its end in --max_new_tokens."""
    local_rollout_forward_batch_size: Annotated[int, Range(1)] = 64
    """PPO, GRPO: rows of one forward pass while rolling out."""
    whiten_rewards: bool = False
    """PPO: normalize rewards."""
    kl_coef: Annotated[float, Range(0)] = 0.05
    """PPO: coefficient of the KL term."""
    cliprange: Annotated[float, Range(0, above=True)] = 0.2
    """PPO: clip range of the policy loss."""
    vf_coef: Annotated[float, Range(0)] = 0.1
    """PPO: coefficient of the value loss."""
    cliprange_value: Annotated[float, Range(0, above=True)] = 0.2
    """PPO: clip range of the value loss."""
    gamma: Annotated[float, Range(0, 1)] = 1.0
    """PPO: discount factor."""
    lam: Annotated[float, Range(0, 1)] = 0.95
    """PPO: lambda of GAE."""
    reward_model: Annotated[str | None, Ours(), Alias("reward_model_id_or_path")] = None
    """Same as --reward_model_id_or_path."""
    reward_funcs: Annotated[tuple[str, ...], Ours()] = ()
    """GRPO: reward functions: accuracy (the answer is the row's `solution` or `answer`), format
    (<think>…</think><answer>…</answer>), soft_overlong (against length), or functions of --external_plugins."""
    reward_weights: Annotated[tuple[float, ...], Ours()] = ()
    """GRPO: weights of the rewards in their sum, the reward model's last; empty means 1 each."""
    external_plugins: Annotated[tuple[str, ...], Ours()] = ()
    """GRPO: Python files with reward functions: `def NAME(completions, **columns)` gives a list of numbers."""
    num_generations: Annotated[int, Ours(), Range(2)] = 8
    """GRPO: answers to each prompt, which are compared with each other. --batch_size counts answers."""
    max_completion_length: Annotated[int | None, Ours(), Alias("max_new_tokens")] = None
    """Same as --max_new_tokens, which is 512 for GRPO when neither is given."""
    epsilon: Annotated[float, Ours(), Range(0, above=True)] = 0.2
    """GRPO: how far the ratio of policies may fall below 1 before it is clipped."""
    epsilon_high: Annotated[float | None, Ours(), Range(0, above=True)] = None
    """GRPO: how far it may rise above 1; None means as --epsilon. DAPO takes 0.28."""
    num_iterations: Annotated[int, Ours(), Range(1)] = 1
    """GRPO: how often the answers of a roll-out are trained on."""
    scale_rewards: Annotated[Literal["group", "batch", "none"] | None, Ours()] = None
    """GRPO: what a reward less the mean of its group is divided by: the standard deviation of the group, of the whole
    roll-out, or nothing. None means none for dr_grpo and group otherwise."""
    overlong_filter: Annotated[bool, Ours()] = False
    """GRPO: leave answers that did not come to their end out of the loss."""
    dynamic_sample: Annotated[bool, Ours()] = False
    """GRPO: sample other prompts in place of those whose answers all have one reward, and leave what remains of them
    out of the loss."""
    max_resample_times: Annotated[int, Ours(), Range(0)] = 3
    """GRPO: how often --dynamic_sample samples again for one roll-out."""
    soft_cache_length: Annotated[int | None, Ours(), Range(1)] = None
    """GRPO: the last tokens of the longest answer, over which the reward soft_overlong falls to -1; None means a fifth
    of it."""
    log_completions: Annotated[bool, Ours()] = False
    """GRPO: print an answer of each prompt of a roll-out with its rewards. All are in rollouts.jsonl in any case."""
