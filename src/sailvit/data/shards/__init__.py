"""Files of many records: tars, Parquet files, and the manifest of a folder of them."""
