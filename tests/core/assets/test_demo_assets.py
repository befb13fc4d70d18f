"""The demo's model and data, as they are shipped."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import assets

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
