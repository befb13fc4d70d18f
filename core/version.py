"""The version of this program, as studies and saved profiles name it."""

VERSION = "0.1.0"
