"""The refiner in export: its graphs, the folder that holds them, and their verification."""
