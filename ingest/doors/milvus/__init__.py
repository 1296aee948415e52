"""The Milvus door: the RESTful APIs v1 and v2 of Milvus and Zilliz Cloud. A collection is an index, a database an account."""
