#!/usr/bin/env bash
# The whole way: shards, pretraining, fine-tuning from those weights and from random ones.
#   benchmarks/demo.sh         on synthetic sound
#   benchmarks/demo.sh DIR     on the published corpora below DIR: speech_commands, fsdd, esc10
set -euo pipefail
data="${1:-}"
run="${RUNS:-runs}/demo-$(date +%Y%m%d-%H%M%S)"
shards=()
task=()

add() { # corpus, folder below DIR, weight in pretraining, what to fine-tune on
    [ -d "$data/$2" ] || return 0
    echo "== shards of $data/$2"
    local out="shards/demo-$2-$(cd "$data/$2" && pwd | cksum | cut -d' ' -f1)"
    sslaudio shards build --corpus "$1" --root "$data/$2" --out "$out"
    shards+=("$out=$3")
    [ ${#task[@]} -gt 0 ] || task=($4 --root "$data/$2")
}

if [ -z "$data" ]; then
    echo "== synthetic shards"
    sslaudio shards synth --out shards/synth
    shards=(shards/synth)
    task=(--task shards --root shards/synth)
else
    add speech_commands speech_commands 1 "--task speechcommands --task.version v2-10"
    add fsdd fsdd 0.25 "--task fsdd"
    add esc50 esc10 3 "--task esc50 --task.subset esc10"
    add esc50 esc50 3 "--task esc50"
    if [ ${#shards[@]} = 0 ]; then
        echo "there is no speech_commands, fsdd, esc10 or esc50 below $data" >&2
        exit 2
    fi
fi

echo "== pretraining"
accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    sslaudio/pretrain.py --config configs/pretrain/demo.yaml \
    --data.shards "${shards[@]}" --out "$run"
echo "== fine-tuning from the pretrained weights"
sslaudio finetune --config demo "${task[@]}" --checkpoint "$run" --out "$run-pretrained"
echo "== fine-tuning from random weights"
sslaudio finetune --config demo "${task[@]}" --out "$run-random"
python - "$run" <<'PY'
import json
import sys

run = sys.argv[1]
print("\ntest accuracy after fine-tuning")
for name in ("pretrained", "random"):
    with open(f"{run}-{name}/results.json") as file:
        print(f"  from {name + ' weights':20s} {json.load(file)[0]['test']:.1%}")
print(f"\nlook at it:  .venv/bin/tensorboard --logdir {run}")
PY
