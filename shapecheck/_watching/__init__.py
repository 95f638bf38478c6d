"""How functions without contracts are called: recorded in the program itself, which stays the program that it is."""
