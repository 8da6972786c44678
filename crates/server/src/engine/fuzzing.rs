//! Entry points of the fuzz target `log_segments`: the payloads of records.

/// Decodes the payload of a publication in the log, and encodes it again. `None` if it is not one.
pub fn decode_payload(payload: &[u8]) -> Option<Vec<u8>> {
    let stored = super::record::decode(payload)?;
    let key = stored.idempotency_key.as_deref();
    Some(super::record::encode(&stored.content, key, stored.version.as_ref()))
}
