-- A payload of bytes, in base64; empty where the payload is text.
ALTER TABLE task ADD COLUMN payload_base64 TEXT NOT NULL DEFAULT '';
