"""The steps of an inspection run: decode, classify, explain, record, sign."""
