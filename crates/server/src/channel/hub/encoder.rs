//! The encoding of a publication for many subscribers.

use sockeye::PreparedMessage;

use crate::channel::ChannelName;
use crate::delta;
use crate::engine::Publication;
use crate::protocol::{Data, Encoding, Push, PushCache, PushTarget, Shape, WireData};

/// The channel of a push, by its id or by its name.
pub(super) fn target(name: &ChannelName, id: u64, is_by_id: bool) -> PushTarget<'_> {
    match is_by_id {
        true => PushTarget::id(id),
        false => PushTarget::channel(name.as_str()),
    }
}

/// Encodes a publication for many subscribers.
pub(super) struct PublicationEncoder<'a> {
    pub(super) name: &'a ChannelName,
    /// The id of the channel, for subscribers that know it.
    pub(super) id: u64,
    pub(super) publication: &'a Publication,
    /// The previous publication, from which deltas are made.
    pub(super) previous: Option<Data>,
    /// The deltas of both encodings, each `Some(None)` if it would not be smaller than the data.
    pub(super) deltas: [Option<Option<Vec<u8>>>; 2],
    pub(super) cache: PushCache,
}

impl PublicationEncoder<'_> {
    pub(super) fn encode(&mut self, encoding: Encoding, mut shape: Shape, is_by_id: bool) -> &PreparedMessage {
        let (previous, next) = (self.previous.as_ref(), &self.publication.content.data);
        let deltas = &mut self.deltas[encoding as usize];
        if shape == Shape::Delta
            && deltas
                .get_or_insert_with(|| delta::between(encoding, previous?, next))
                .is_none()
        {
            shape = Shape::Complete;
        }
        let target = target(self.name, self.id, is_by_id);
        let publication = self.publication;
        self.cache.get(encoding, shape, is_by_id, || {
            let data = match shape {
                Shape::Plain => WireData::Plain(next),
                Shape::Complete => WireData::Complete(next),
                Shape::Delta => {
                    let delta = deltas.as_ref().and_then(|delta| delta.as_deref());
                    WireData::Delta(delta.unwrap_or_default().into())
                }
            };
            encoding.push(target, &Push::Pub(publication.wire_with(data)))
        })
    }
}
