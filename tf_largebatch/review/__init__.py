"""What a person looks at: tables, figures, reports, TensorBoard."""
