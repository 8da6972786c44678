//! Placeholder for the `deflate` module when the feature is disabled: an uninhabited [`DeflateSession`].

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::message::Fragment;
use crate::protocol_error::ProtocolError;

#[derive(Debug)]
pub(crate) enum DeflateSession {}

impl DeflateSession {
    pub(crate) fn without_codecs(&self) -> Self {
        match *self {}
    }

    pub(crate) fn should_compress(&self, _len: usize) -> bool {
        match *self {}
    }

    pub(crate) fn compress<R>(&mut self, _message: &[u8], _send: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match *self {}
    }

    pub(crate) fn inflate(
        &mut self,
        _payload: Cow<'_, [u8]>,
        _size_max: u64,
        _step_max: usize,
    ) -> Result<Option<Vec<u8>>, ProtocolError> {
        match *self {}
    }

    pub(crate) fn resume_inflating(&mut self, _step_max: usize) -> Result<Option<Vec<u8>>, ProtocolError> {
        match *self {}
    }

    pub(crate) fn inflate_to_chunk(&mut self, _input: &[u8], _fragment: Fragment) -> Result<bool, ProtocolError> {
        match *self {}
    }

    pub(crate) fn inflated_chunk(&self) -> &[u8] {
        match *self {}
    }

    pub(crate) fn buffered_len(&self) -> usize {
        match *self {}
    }

    pub(crate) fn stop_inflating(&mut self) {
        match *self {}
    }

    pub(crate) fn start_compressing<R>(&mut self, _part: &[u8], _send: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match *self {}
    }

    pub(crate) fn compress_part<R>(
        &mut self,
        _part: &[u8],
        _fragment: Fragment,
        _send: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        match *self {}
    }

    pub(crate) fn is_compressing(&self) -> bool {
        match *self {}
    }

    pub(crate) fn stop_compressing(&mut self) {
        match *self {}
    }
}
