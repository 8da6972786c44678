//! The labels of metrics. Each has a small number of values.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

use crate::protocol::Encoding;

/// Who published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Source {
    /// A client.
    #[expect(non_camel_case_types, reason = "the value of the label")]
    client,
    /// The HTTP API or the embedding program.
    #[expect(non_camel_case_types, reason = "the value of the label")]
    server,
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    /// Server-sent events.
    Sse,
    HttpStream,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SourceLabel {
    pub(super) source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CodeLabel {
    pub(super) code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RecoveredLabel {
    pub(super) recovered: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PolicyLabel {
    pub(super) policy: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TransportLabel {
    transport: &'static str,
    format: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ApiLabel {
    pub(super) method: &'static str,
    pub(super) status: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HookLabel {
    pub(super) hook: &'static str,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HookFailureLabel {
    pub(super) hook: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ConsoleLabel {
    pub(super) result: &'static str,
}

impl Transport {
    /// The name in metrics and in calls of the backend.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::HttpStream => "http_stream",
        }
    }
}

impl TransportLabel {
    pub(super) fn new(transport: Transport, encoding: Encoding) -> Self {
        Self {
            transport: transport.name(),
            format: match encoding {
                Encoding::Json => "json",
                Encoding::Protobuf => "protobuf",
            },
        }
    }
}
