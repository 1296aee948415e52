"""Bodies: from the bytes of a request to a changeset, without I/O and without HTTP.

inflate.py undoes content encodings, forms.py, multipart.py and documents.py find out which of the forms a body has, fast.py and precise.py
turn a line into a row, decoder.py decodes what doors read themselves, arrow.py reads Arrow streams, upload.py puts them together, ids.py reads ``{"ids": […]}``. Everything blocks and is called from a
thread.
"""

from ingest.body.ids import parse_ids as parse_ids
from ingest.body.inflate import inflate as inflate
from ingest.body.rules import Rules as Rules
from ingest.body.upload import parse_upload as parse_upload
