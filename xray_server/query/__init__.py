"""The query language: parsing questions, evaluating conditions, and answering from any store."""
