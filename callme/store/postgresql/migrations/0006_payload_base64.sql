-- A payload of bytes, in base64; empty where the payload is text.
ALTER TABLE task ADD COLUMN IF NOT EXISTS payload_base64 text NOT NULL DEFAULT '';
