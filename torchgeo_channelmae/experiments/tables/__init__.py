"""The paper's tables: what they consist of, how they are run and how they are shown."""
