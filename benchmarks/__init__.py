"""What minidl costs, beside its peers and beside the machine's own limit: one script per question.

python -m benchmarks                 every script, one after the other
python -m benchmarks.train_step      one of them; add --quick for a taste of under a minute
"""
