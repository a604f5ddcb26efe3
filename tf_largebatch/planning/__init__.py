"""What a training needs before a machine is rented: arithmetic only, no framework."""
