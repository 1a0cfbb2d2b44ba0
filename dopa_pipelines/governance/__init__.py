"""What a governance lead answers for: evidence for auditors. Reads what others recorded, writes nothing into the warehouse."""
