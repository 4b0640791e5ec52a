"""Measuring a model: questions, what it answers, and how well."""
