"""The elements that several programs have in their chains; one concept a file."""
