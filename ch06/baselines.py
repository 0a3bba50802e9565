"""Simple classifiers to compare with, and metrics with intervals (6.8).

Labels and answers are 0 for ham and 1 for spam. Probabilities are those of spam.
"""

import re

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_fscore_support
from sklearn.naive_bayes import BernoulliNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from ch05.training import evaluating
from ch06.splits import words_of


def fold_digits(text):
    """Make letters lower case and digits 0: "Call 80123" -> "call 00000"."""
    return re.sub(r"\d", "0", text.lower())


def count_characters(texts):
    """The length of each text, (num_texts, 1)."""
    return np.array([[len(text)] for text in texts])


def count_digits(texts):
    """How many digits each text has, (num_texts, 1)."""
    return np.array([[sum(c.isdigit() for c in text)] for text in texts])


def create_baselines():
    """Untrained classifiers by name, from one threshold to character n-grams."""
    threshold = {"max_depth": 1, "random_state": 123}
    characters = TfidfVectorizer(
        preprocessor=fold_digits, analyzer="char", ngram_range=(1, 5), sublinear_tf=True
    )
    return {
        "message length": make_pipeline(
            FunctionTransformer(count_characters), DecisionTreeClassifier(**threshold)
        ),
        "digit count": make_pipeline(
            FunctionTransformer(count_digits), DecisionTreeClassifier(**threshold)
        ),
        "naive Bayes on words": make_pipeline(
            CountVectorizer(analyzer=words_of), BernoulliNB(alpha=0.1)
        ),
        "logistic regression on characters": make_pipeline(
            characters, LogisticRegression(C=100, max_iter=1000)
        ),
    }


@torch.no_grad()
def predict(data_loader, model, device):
    """Two arrays in the order of the loader: labels, and probabilities of spam."""
    labels, probabilities = [], []
    with evaluating(model):
        for inputs, batch_labels in data_loader:
            logits = model(inputs.to(device))[:, -1, :]  # (b, num_classes)
            probabilities.append(logits.softmax(dim=-1)[:, 1].cpu())
            labels.append(batch_labels)
    return torch.cat(labels).numpy(), torch.cat(probabilities).numpy()


def wilson_interval(num_right, num_examples):
    """The 95% confidence interval of a proportion (Wilson 1927): (low, high)."""
    interval = binomtest(int(num_right), num_examples).proportion_ci(method="wilson")
    return interval.low, interval.high


def score(labels, answers):
    """A dict: accuracy with its 95% interval; precision, recall and F1 of spam."""
    is_right = np.asarray(labels) == np.asarray(answers)
    low, high = wilson_interval(is_right.sum(), len(is_right))
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, answers, average="binary", zero_division=0
    )
    scores = {"accuracy": is_right.mean(), "from": low, "to": high}
    return scores | {"precision": precision, "recall": recall, "F1": f1}
