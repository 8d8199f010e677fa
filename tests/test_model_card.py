"""What a model card says of a run, and the warning of evaluation labels that are noisy too."""

import logging

import pytest
from small import bert, make_trainer, text_data
from transformers import Trainer

from hf_sat.model_card import PAPERS
from hf_sat.noise import inject_label_noise
from hf_sat.noisy_evaluation import known_wrong_share

ON = {
    "sat": {"sat_momentum": 0.5, "sat_start_epoch": 1.0},
    "elr": {"label_correction": "elr"},
    "asam": {"label_correction": "none", "sam": "asam"},
    "kd": {"label_correction": "none", "kd_weight": 0.3},
    "all": {"sam": "sam", "kd_weight": 0.3},
    "layers": {"label_correction": "none", "kd_weight": 0.3, "kd_hidden_weight": 2.0, "kd_layer_map": "1:2"},
}
NAMED = {"all": ("sat", "sam", "kd"), "layers": ("kd",)}


def card_of(folder, **settings):
    trainer = make_trainer(folder, num_train_epochs=3, eval_strategy="epoch", eval_dataset=text_data(8), **settings)
    if "kd_weight" in settings:
        trainer.teacher_model = bert(seed=1)
    trainer.train()
    trainer.create_model_card(tags="mine", model_name="animals")
    with open(f"{folder}/README.md", encoding="utf-8") as file:
        return trainer, file.read()


@pytest.mark.parametrize("name", ON)
def test_a_card_names_methods_settings_and_papers(name, tmp_path):
    trainer, card = card_of(str(tmp_path), **ON[name])
    methods = NAMED.get(name, (name,))
    for method, (title, paper, number) in PAPERS.items():
        assert (f"**{title}** ([{paper}](https://arxiv.org/abs/{number}))" in card) == (method in methods)
    assert card.index("### Training hyperparameters") < card.index("### Methods") < card.index("### Training results")
    front = card.split("---")[1]
    assert "hf_sat" in front and "mine" in front and card.count("### Methods") == 1
    for setting, value in ON[name].items():
        assert setting in ("label_correction", "sam") or f"| `{setting}` | {value} |" in card
    if trainer.args.label_correction != "none":
        rate = trainer.label_report().noise_rate
        assert f"| estimated noise rate | {rate.rate:.1%} (95 % interval" in card
    trainer.create_model_card()
    assert (tmp_path / "README.md").read_text(encoding="utf-8").count("### Methods") == 1


def test_with_all_off_the_card_is_upstreams(tmp_path):
    cards = []
    for trainer in (Trainer, None):
        more = {"label_correction": "none"} if trainer is None else {"trainer": Trainer}
        made = make_trainer(str(tmp_path), num_train_epochs=1, **more)
        made.train()
        made.create_model_card(model_name="animals")
        cards.append((tmp_path / "README.md").read_text(encoding="utf-8"))
        (tmp_path / "README.md").unlink()
    assert cards[0] == cards[1]


# ---- evaluation labels ----------------------------------------------------------------------------------------------


NOISY = inject_label_noise(text_data(40), 0.25, label_column="labels", seed=0)
CLEAN = inject_label_noise(text_data(40), 0.0, label_column="labels", seed=0)


@pytest.mark.parametrize(
    ("evaluated", "best", "said"),
    [
        (NOISY, True, "25% of the evaluation labels are wrong too"),
        ({"a": CLEAN, "b": NOISY}, True, "25% of the evaluation labels are wrong too"),
        (text_data(8), True, "of the training labels are held to be wrong; if the evaluation labels"),
        (CLEAN, True, None),
        (NOISY, False, None),
    ],
)
def test_a_best_model_picked_by_noisy_labels_is_warned_of(evaluated, best, said, tmp_path, caplog):
    metric = {"metric_for_best_model": "eval_a_loss" if isinstance(evaluated, dict) else "eval_loss"}
    trainer = make_trainer(
        str(tmp_path),
        data=NOISY,
        eval_dataset=evaluated,
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=best,
        sat_start_epoch=0,
        sat_momentum=0,
        **metric if best else {},
    )
    with caplog.at_level(logging.WARNING):
        trainer.train()
    texts = [record.message for record in caplog.records if record.name == "hf_sat.noisy_evaluation"]
    assert (said is None and not texts) or (len(texts) == 1 and said in texts[0])


def test_wrong_labels_of_tokens_are_counted_and_other_data_are_not():
    import datasets

    tokens = datasets.Dataset.from_dict({"labels": [[0, 1], [1]], "clean_labels": [[0, 1], [0]]})
    assert known_wrong_share(tokens, "labels") == pytest.approx(1 / 3)
    assert known_wrong_share([1, 2], "labels") is None and known_wrong_share(text_data(8), "labels") is None
