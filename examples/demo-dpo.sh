#!/bin/sh
# Preferences, whole: ask the model some questions, teach it to prefer one short sentence to its own long answers, ask again.
# Runs on two CPU cores in a few minutes; nothing but PyPI is needed once `make setup` has run.
set -eu
run=${1:-output/demo-dpo}
# Rows, and no chat, in which the second answer would follow the manner of the first.
ask() { swift infer "$@" --val_dataset examples/data/questions.jsonl --max_new_tokens 80 --temperature 0 --save_result false; }

echo "== before"
ask --model_type smollm2-135m-instruct

echo "== learning from pairs"
rm -rf "$run"
swift dpo examples/dpo.yaml --answer_samples 0 --output_dir "$run" --add_output_dir_suffix false

echo "== share of the pairs whose better answer has the higher reward, while training"
sed '$d' "$run/logging.jsonl" | grep -o '"rewards/accuracies": [0-9.]*' | tr '\n' ' '
echo

echo "== after"
ask --ckpt_dir "$(ls -d "$run"/checkpoint-* | sort -V | tail -n 1)"
