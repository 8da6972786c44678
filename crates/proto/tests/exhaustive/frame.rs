//! Structured frames, valid or not, and their encoding (RFC 6455 §5.2).

/// The role that receives the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    Server,
    Client,
}

pub(crate) const BOTH: [Local; 2] = [Local::Server, Local::Client];

/// The masking key: four different non-zero bytes.
pub(crate) const KEY: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x96];

/// The three encodings of a payload length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LengthForm {
    /// In seven bits.
    Short,
    /// In two bytes, announced by 126.
    Two,
    /// In eight bytes, announced by 127.
    Eight,
}

/// One frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    pub(crate) is_masked: bool,
    pub(crate) form: LengthForm,
    /// The length that the header declares.
    pub(crate) len: u64,
    /// The unmasked payload. Shorter than `len` if the frame is incomplete.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A complete frame with the length in its shortest encoding, masked as required for `local`.
    pub(crate) fn new(local: Local, fin: bool, opcode: u8, payload: &[u8]) -> Self {
        let len = payload.len() as u64;
        Self {
            fin,
            rsv: 0,
            opcode,
            is_masked: local == Local::Server,
            form: match len {
                0..=125 => LengthForm::Short,
                126..=0xffff => LengthForm::Two,
                _ => LengthForm::Eight,
            },
            len,
            payload: payload.to_vec(),
        }
    }

    /// The same frame with this declared length and encoding.
    pub(crate) fn declaring(mut self, form: LengthForm, len: u64) -> Self {
        (self.form, self.len) = (form, len);
        self
    }

    pub(crate) fn rsv(mut self, rsv: u8) -> Self {
        self.rsv = rsv;
        self
    }

    /// The same frame with masking toggled.
    pub(crate) fn masked_wrongly(mut self) -> Self {
        self.is_masked = !self.is_masked;
        self
    }

    /// Appends the encoded frame.
    pub(crate) fn append_to(&self, wire: &mut Vec<u8>) {
        wire.push(u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode);
        let mask_bit = u8::from(self.is_masked) << 7;
        match self.form {
            LengthForm::Short => wire.push(mask_bit | self.len as u8),
            LengthForm::Two => {
                wire.push(mask_bit | 126);
                wire.extend_from_slice(&(self.len as u16).to_be_bytes());
            }
            LengthForm::Eight => {
                wire.push(mask_bit | 127);
                wire.extend_from_slice(&self.len.to_be_bytes());
            }
        }
        let key = if self.is_masked { KEY } else { [0; 4] };
        if self.is_masked {
            wire.extend_from_slice(&KEY);
        }
        wire.extend(
            self.payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        self.append_to(&mut wire);
        wire
    }
}
