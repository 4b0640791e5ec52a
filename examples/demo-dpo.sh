#!/bin/sh
# Preferences, whole: ask the model some questions, teach it to prefer plain answers to wordy ones, ask again.
# Runs on two CPU cores in a few minutes; nothing but PyPI is needed once `make setup` has run.
set -eu
run=${1:-output/demo-dpo}
ask() { printf 'What is the capital of Greece?\nHow many hours are in a day?\n' | swift infer "$@" --max_new_tokens 64 --temperature 0; }

echo "== before"
ask --model_type smollm2-135m-instruct

echo "== learning from pairs"
rm -rf "$run"
swift dpo examples/dpo.yaml --output_dir "$run" --add_output_dir_suffix false

echo "== after"
ask --ckpt_dir "$(ls -d "$run"/checkpoint-* | sort -V | tail -n 1)"
