"""Converters of single data sets of text: each knows the columns of one set and gives a row of a known format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from swift.data.formats import turns_in_text
from swift.prompts import values
from swift.prompts.bad_row import BadRow

Fields = Mapping[str, Any]


def dolly_15k(record: Fields) -> dict[str, Any]:
    """A question, perhaps with a text it is about."""
    context, question = record.get("context"), values.text(record.get("instruction"), "instruction")
    query = f"Here is some information that may help:\n{context}\n{question}" if context else question
    return {"query": query, "response": record.get("response")}


def firefly(record: Fields) -> dict[str, Any]:
    """Chinese tasks: input and target."""
    return {"query": record.get("input"), "response": record.get("target")}


def zhihu_kol(record: Fields) -> dict[str, Any]:
    """Questions and answers of Zhihu, columns in capitals."""
    return {"query": record.get("INSTRUCTION"), "response": record.get("RESPONSE")}


def blossom_math(record: Fields) -> dict[str, Any]:
    """A sum, the way to its answer, and the answer."""
    return {"query": record.get("input"), "response": f"{record.get('output')}\n\nAnswer: {record.get('answer')}"}


def long_alpaca(record: Fields) -> dict[str, Any]:
    """Long questions; answers that start with the word Answer lose it."""
    output = values.text(record.get("output"), "output").strip()
    return {"query": record.get("instruction"), "response": output.removeprefix("Answer:").strip()}


def guanaco(record: Fields) -> dict[str, Any]:
    """The dialogue so far stands in `instruction` as User:/Assistant: lines, the question in `input`."""
    before, question = record.get("instruction") or "", record.get("input") or ""
    turns = re.split(r"(?:^|\n)\s*(User|Assistant)\s*[:：]", before)
    spoken = zip(turns[1::2], turns[2::2], strict=True)
    messages = [{"role": speaker.lower(), "content": given.strip()} for speaker, given in spoken]
    if not messages:
        question = "\n".join(part for part in (before, question) if part)
    elif not question and messages[-1]["role"] == "user":
        question = messages.pop()["content"]
    question = re.sub(r"^\s*User\s*[:：]", "", question).strip()
    answer = {"role": "assistant", "content": record.get("output")}
    return {"messages": [*messages, {"role": "user", "content": question}, answer]}


def ruozhiba(record: Fields) -> dict[str, Any]:
    """Jokes of a Chinese forum as plain text, without their numbers."""
    title = record.get("title") or record.get("content")
    text, more = values.text(title, "title"), record.get("abs")
    if more and more != text:
        text = f"{text}，{more}"
    numbered = re.match(r"\d+[.,\s、]\s*(.+)", text, re.DOTALL)
    return {"response": numbered.group(1) if numbered else text}


def tigerbot_law(record: Fields) -> dict[str, Any]:
    """Paragraphs of law as plain text below their headings."""
    headings = [record.get(name) for name in ("type", "title", "chapter1", "chapter2", "chapter3")]
    paragraph = values.text(record.get("content"), "content")
    return {"response": "\n".join(str(part) for part in (*headings, paragraph) if part)}


def leetcode_python(record: Fields) -> dict[str, Any]:
    """A problem and its solution in one Markdown text; the explanation follows the code."""
    whole = values.text(record.get("code_with_problem"), "code_with_problem")
    problem, fence, code = whole.partition("```python")
    if not fence:
        raise BadRow("wrong type", key="code_with_problem", expected="a ```python block", value=whole)
    answer = f"{fence}{code}".strip()
    if record.get("explanation_only"):
        answer = f"{answer}\n\n{record['explanation_only']}"
    return {"query": problem.removeprefix("# ").strip(), "response": answer}


def synthetic_text_to_sql(record: Fields) -> dict[str, Any]:
    """A question about tables, the way to its SQL, and the SQL."""
    return {
        "query": f"Tables:\n{record.get('sql_context')}\n{record.get('sql_prompt')}",
        "response": f"{record.get('sql_explanation')}\nThe SQL is:\n{record.get('sql')}",
    }


def dureader_robust(record: Fields) -> dict[str, Any]:
    """Text and answer, parted by [SEP], from which the question is to be made."""
    text, mark, answer = values.text(record.get("text1"), "text1").partition("[SEP]")
    if not mark:
        raise BadRow("wrong type", key="text1", expected="a text and an answer parted by [SEP]", value=text)
    query = f"Task: Question Generation\nContext: {text}\nAnswer: {answer}\nQuestion:"
    return {"query": query, "response": record.get("text2")}


def hc3(record: Fields) -> dict[str, Any]:
    """Human or machine? One answer of the record; the kind changes with the length of the question."""
    question = values.text(record.get("question"), "question")
    order = ("human_answers", "chatgpt_answers") if len(question) % 2 else ("chatgpt_answers", "human_answers")
    key = next((name for name in order if record.get(name)), order[0])
    answers = values.a_list(record.get(key), key)
    answer = values.text(answers[0] if answers else None, key)
    query = (
        "Task: Was this answer written by a human or by ChatGPT?\n"
        f"Question: {question}\nAnswer: {answer}\nCategory: Human, ChatGPT\nOutput:"
    )
    return {"query": query, "response": "Human" if key == "human_answers" else "ChatGPT"}


def sharegpt(record: Fields) -> dict[str, Any]:
    """Pairs of human and assistant."""
    return {"conversation": record.get("conversation")}


def lmsys_chat(record: Fields) -> dict[str, Any]:
    """Turns with role and content."""
    return {"messages": record.get("conversation")}


def toolbench(record: Fields) -> dict[str, Any]:
    """ReAct conversations whose tool results come from `function`."""
    return {"messages": record.get("conversations")}


def msagent_multirole_dataset(record: Fields) -> dict[str, Any]:
    """Several people talk; all but the last to speak are put before the answer, each with his name."""
    turns = values.a_list(record.get("conversations"), "conversations")
    if len(turns) < 2:
        raise BadRow("roles out of order", key="conversations", expected="at least two turns", value=turns)
    *before, last = turns
    if before[0].get("from") == "system":
        system, before = before[0].get("value"), before[1:]
    else:
        system = None
    lines = [f"{turn.get('from')}: {turn.get('value')}" for turn in before]
    return {"system": system, "query": "\n".join(lines), "response": last.get("value")}


def hh_rlhf(record: Fields) -> dict[str, Any]:
    """Two dialogues in one text each, with Human: and Assistant: lines."""
    return {key: _dialogue(record.get(key), key) for key in ("chosen", "rejected")}


def _dialogue(value: Any, key: str) -> list[dict[str, Any]]:
    return turns_in_text(values.text(value, key)) or []


def hh_rlhf_cn(record: Fields) -> dict[str, Any]:
    """The same in Chinese, as lists of role and text."""

    def turn(item: Any) -> dict[str, Any]:
        item = values.literal(item, "chosen", "a turn") or {}
        return {"role": item.get("role"), "content": item.get("text")}

    context = [turn(item) for item in values.a_list(record.get("context"), "context")]
    return {"messages": context, "chosen": turn(record.get("chosen")), "rejected": turn(record.get("rejected"))}


def orpo_dpo_mix_40k(record: Fields) -> dict[str, Any]:
    """Whole conversations; the part about harmful requests is left out."""
    if record.get("source") == "toxic-dpo-v0.2":
        raise BadRow("not for training", key="source", expected="another source", value=record["source"])
    return {"chosen": record.get("chosen"), "rejected": record.get("rejected")}


def shareai_dpo(record: Fields) -> dict[str, Any]:
    """A Chinese answer with emoji against an English one."""
    chosen, rejected = record.get("answer_zh"), record.get("answer_en")
    return {"query": record.get("question"), "response": chosen, "rejected_response": rejected}


def ultrafeedback_kto(record: Fields) -> dict[str, Any]:
    """One answer and whether it is liked."""
    return {"prompt": record.get("prompt"), "completion": record.get("completion"), "label": record.get("label")}


CONVERTERS: dict[str, Callable[..., Any]] = {
    "blossom_math": blossom_math,
    "dolly_15k": dolly_15k,
    "dureader_robust": dureader_robust,
    "firefly": firefly,
    "guanaco": guanaco,
    "hc3": hc3,
    "hh_rlhf": hh_rlhf,
    "hh_rlhf_cn": hh_rlhf_cn,
    "leetcode_python": leetcode_python,
    "lmsys_chat": lmsys_chat,
    "long_alpaca": long_alpaca,
    "msagent_multirole_dataset": msagent_multirole_dataset,
    "orpo_dpo_mix_40k": orpo_dpo_mix_40k,
    "ruozhiba": ruozhiba,
    "shareai_dpo": shareai_dpo,
    "sharegpt": sharegpt,
    "synthetic_text_to_sql": synthetic_text_to_sql,
    "tigerbot_law": tigerbot_law,
    "toolbench": toolbench,
    "ultrafeedback_kto": ultrafeedback_kto,
    "zhihu_kol": zhihu_kol,
}
"""By the name the catalog uses."""
