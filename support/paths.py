"""The folders of the course: its root, and where trained models go."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"  # what a reader trained
