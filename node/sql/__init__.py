"""Opening SQLCipher through sqlite-utils, transactions, and the version floor."""
