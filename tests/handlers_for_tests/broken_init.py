raise KeyError("TABLE_NAME")
