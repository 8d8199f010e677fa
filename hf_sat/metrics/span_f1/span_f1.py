"""Span F1 as a module of `evaluate`, which loads it from this folder: no network, and no further package.

evaluate.load(os.path.join(os.path.dirname(hf_sat.__file__), "metrics", "span_f1"))
"""

import datasets
import evaluate

from hf_sat.metrics.spans import span_scores

DESCRIPTION = (
    "Precision, recall and F1 of exact spans of tags (IOB1, IOB2, IO, IOBES, BILOU), as conlleval counts them."
)
INPUTS = "predictions, references: lists of sentences, each a list of tags such as 'B-PER'."


class SpanF1(evaluate.Metric):
    """What [`span_scores`] returns, from batches that are added as they come."""

    def _info(self):
        tags = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions, references):
        return span_scores(predictions, references)
