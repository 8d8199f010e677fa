"""The settings table: a row for each way to run. Parity, resume, accumulation and composition tests run over it."""

SETTINGS = {
    "auto": {},
    "paper": {"sat_momentum": 0.9, "sat_start_epoch": 1},
    "from the start": {"sat_momentum": 0.3, "sat_start_epoch": 0},
    "mid-epoch": {"sat_momentum": 0.5, "sat_start_epoch": 0.5},
    "symmetric": {"sat_momentum": 0.6, "sat_start_epoch": 0.5, "sat_loss": "sce"},
    "unweighted": {"sat_momentum": 0.6, "sat_start_epoch": 1, "sat_reweight": False},
    "smoothed before": {"sat_momentum": 0.6, "sat_start_epoch": 1, "label_smoothing_factor": 0.1},
    "accumulating": {"sat_momentum": 0.6, "sat_start_epoch": 0.5, "gradient_accumulation_steps": 2},
    "by length": {"sat_momentum": 0.6, "sat_start_epoch": 0.5, "train_sampling_strategy": "group_by_length"},
    "in order": {"sat_momentum": 0.6, "sat_start_epoch": 0.5, "train_sampling_strategy": "sequential"},
    "top two": {"sat_momentum": 0.6, "sat_start_epoch": 0.5, "sat_top_k": 2},
    "half precision": {"sat_momentum": 0.6, "sat_start_epoch": 0.5, "sat_target_dtype": "bfloat16"},
    "elr": {"label_correction": "elr"},
    "gce": {"label_correction": "gce"},
    "sce": {"label_correction": "sce"},
    "bootstrap": {"label_correction": "bootstrap", "bootstrap_beta": 0.8},
    "max_steps": {"max_steps": 11, "sat_momentum": "auto", "sat_start_epoch": 0.5},
}
