//! Security-relevant inputs from a peer, the required behavior, and the tests that check it.
//!
//! Tests are named by their file under `tests/` (or `src/`) and their function; a test in this binary checks that each
//! exists. Rows about frames are tested in one piece, for every split in two, byte by byte, and next to a valid
//! message, for both roles where applicable. `exhaustive` enumerates all inputs up to a size.
//!
//! ## The URI and the request
//!
//! | input | required behavior | rule | tests |
//! |---|---|---|---|
//! | a URI with a fragment, or a user name and password | an error before anything is sent | RFC 6455 §3 | `handshake_client::client_rejects_ambiguous_uris` |
//! | another scheme; backslashes, spaces, numeric host forms | an error that explains how to write it | RFC 3986 §3 | `handshake_client::client_rejects_ambiguous_uris` |
//! | IPv6, punycode, an empty path, default ports | Host and target as in the RFC | RFC 6455 §3, §4.1 | `handshake_client::client_sends_host_and_target_of_the_uri`, `handshake_client::client_uses_host_and_port_of_the_uri` |
//! | an absolute target | accepted; its host replaces the Host header | RFC 9112 §3.2.2 | `handshake_server::server_receives_targets` |
//! | the target `*`, or an authority | 400 | RFC 9112 §3.2 | `handshake_server::server_receives_targets` |
//! | CONNECT, POST, HEAD, `get` | 405 with Allow | RFC 6455 §4.2.1 | `handshake_server::server_receives_another_method_and_answers_405_with_allow`, `handshake_server::server_answers_head_without_a_body` |
//! | HTTP/1.0, 0.9, 1.2, 2.0 | 400 below 1.1, accepted from 1.1, 505 from 2 | RFC 9110 §7.8, RFC 9112 §2.3 | `handshake_server::server_receives_versions_of_http` |
//! | `http/1.1`, `HTTP/11`, two spaces | 400 | RFC 9112 §3 | `handshake_server::server_receives_invalid_request_lines_and_answers_400` |
//! | a body: any Content-Length but a single `0`, any transfer coding | 400; following bytes are ignored | RFC 9112 §6, §11.2 | `handshake_server::server_receives_a_body_and_answers_400`, `cve::cve_2026_69243_upgrade_with_a_body_is_rejected` |
//! | a folded line, a space before the colon or the first header | 400 | RFC 9112 §5.1, §5.2 | `handshake_server::server_receives_line_folding_and_space_before_the_colon_and_answers_400` |
//! | bare CR or LF, NUL, other control bytes | 400 at that byte | RFC 9112 §2.2, RFC 9110 §5.5 | `handshake_server::server_rejects_invalid_bytes_immediately`, `handshake_server::server_receives_each_byte_in_name_value_and_target` |
//! | no Host, two, or an invalid one | 400 | RFC 9112 §3.2 | `handshake_server::server_receives_hosts` |
//! | Connection and Upgrade as lists: order, case, tabs, empty elements, several lines | accepted | RFC 6455 §4.2.1, RFC 9110 §5.6.1 | `handshake_server::server_receives_connection_and_upgrade_as_lists_over_lines` |
//! | `Upgrade2`, a quoted token, `websocket/13` | 400, or 426 for the Upgrade header | RFC 6455 §4.2.1 | `handshake_server::server_receives_connection_and_upgrade_as_lists_over_lines`, `handshake_server::server_receives_a_plain_request_and_answers_426` |
//! | a key that is missing, repeated, or not the canonical base64 of 16 bytes | 400 | RFC 6455 §4.2.1, erratum 3150 | `handshake_server::server_receives_keys` |
//! | any version but a single `13` | 426 with the supported version | RFC 6455 §4.2.2, §4.4 | `handshake_server::server_receives_other_versions_and_answers_426` |
//! | subprotocols: repeated, empty, invalid, a thousand, on two lines | 400, or one of those offered is chosen | RFC 6455 §4.2.2, §11.3.4 | `handshake_server::server_receives_offers_of_subprotocols`, `handshake_application::server_chooses_an_offered_subprotocol_by_its_own_preference` |
//! | extensions: unknown, quoted, malformed, thousands of parameters | ignored, or 400, in linear time | RFC 6455 §9.1 | `handshake_server::server_receives_offers_of_extensions`, `cve::cve_2020_7662_quoted_backslashes_take_linear_time_on_a_server` |
//! | an origin that is not allowed | 403 | RFC 6455 §4.2.2, §10.2 | `handshake_application::server_checks_origins`, `handshake_application::server_rejects_an_origin_with_403`, `handshake_server::server_receives_two_origins_and_answers_400` |
//! | a foreign Host on a loopback address | 421 | RFC 9110 §15.5.20 | `handshake_application::server_checks_hosts` |
//! | more than the limits | 431, or 414 for the first line | RFC 6585 §5, RFC 9110 §15.5.15 | `handshake_server::server_receives_more_than_the_limits` |
//! | an incomplete head until the timeout | 408, or no response if nothing was received | RFC 9110 §15.5.9 | `handshake_server::server_handles_timeout` |
//! | more connections than the application accepts | 503 with Retry-After, chosen by the application | RFC 9110 §15.6.4 | `security_table::server_sheds_load_with_503_and_retry_after` |
//! | frames received with the request | delivered once it is accepted | RFC 6455 §4.1 | `security_table::server_delivers_frames_received_with_the_request_for_every_split` |
//! | a second request after an invalid one | ignored | RFC 9112 §9.6 | `handshake_server::server_ignores_a_second_request_after_an_invalid_one`, `cve::cve_2026_130647_bytes_after_an_accepted_request_are_frames` |
//! | CR, LF or NUL from the application, in any field | the call fails | RFC 9110 §5.5 | `handshake_application::server_application_cannot_inject_line_ends`, `handshake_client::client_application_cannot_inject_line_ends` |
//!
//! ## The response
//!
//! | input | required behavior | rule | tests |
//! |---|---|---|---|
//! | a 101 without Upgrade or Connection, or with other values | the client fails | RFC 6455 §4.1 | `handshake_client::client_receives_upgrade_and_connection` |
//! | Sec-WebSocket-Accept missing, repeated, or in another case | the client fails | RFC 6455 §4.1 | `handshake_client::client_receives_accept_keys` |
//! | another status with the headers of an upgrade | rejected; status, headers and body are returned to the caller | RFC 6455 §4.1 | `handshake_client::client_rejects_every_status_but_101`, `cve::cve_2024_23326_200_with_upgrade_headers_is_a_rejection` |
//! | a 101 that declares a body | ignored: frames start after the head | RFC 9110 §6.4.1, RFC 9112 §6.3 | `handshake_client::client_receives_101_with_declared_body_and_reads_frames` |
//! | frames received with the 101 | delivered | RFC 6455 §4.1 | `security_table::client_delivers_frames_received_with_the_response_for_every_split` |
//! | 100, 103 and others before the 101 | skipped, at most ten | RFC 9110 §15.2 | `handshake_client::client_skips_informational_responses_up_to_the_limit` |
//! | a subprotocol that was not offered, or two | the client fails | RFC 6455 §4.1 | `handshake_client::client_receives_subprotocols` |
//! | an extension that was not offered, or malformed | the client fails | RFC 6455 §4.1, §9.1 | `handshake_client::client_receives_extensions` |
//! | a redirect or an authentication challenge | returned to the caller, never followed | RFC 6455 §4.1 | `handshake_client::client_returns_the_headers_of_a_rejection`, `cve::cve_2026_42498_redirect_is_returned_and_not_followed` |
//! | the body of a rejection: with a length, chunked, until the end of the connection; over the limit | kept up to 16 KiB and marked as truncated | RFC 9112 §6.3, §7.1 | `handshake_client::client_receives_a_body_by_length`, `handshake_client::client_receives_a_body_in_chunks`, `handshake_client::client_truncates_body_at_the_limit` |
//! | a head that is too large or incomplete | the client fails | RFC 6455 §4.1 | `handshake_client::client_receives_more_than_the_limits`, `handshake_client::client_waits_for_a_complete_head` |
//! | an invalid status line or header | the client fails | RFC 9112 §4, §5 | `handshake_client::client_receives_status_lines`, `handshake_client::client_receives_each_byte_in_name_value_and_reason` |
//!
//! ## Frames
//!
//! | input | required behavior | rule | tests |
//! |---|---|---|---|
//! | an unmasked frame from a client, a masked frame from a server | 1002 | RFC 6455 §5.1 | `connection_frames::server_receives_unmasked_frame_fails_1002`, `connection_frames::client_receives_masked_frame_fails_1002` |
//! | reserved bits without an extension; on continuations and control frames | 1002 | RFC 6455 §5.2 | `connection_frames::server_receives_reserved_bits_fails_1002`, `connection_frames::client_receives_reserved_bits_fails_1002`, `connection_frames::server_receives_reserved_bits_on_a_continuation_fails_1002`, `connection_frames::client_receives_reserved_bits_on_a_continuation_fails_1002` |
//! | opcodes 3 to 7 and B to F | 1002 | RFC 6455 §5.2 | `connection_frames::server_receives_reserved_opcode_fails_1002`, `connection_frames::client_receives_reserved_opcode_fails_1002` |
//! | a length that is not in its shortest encoding | 1002 | RFC 6455 §5.2 | `connection_frames::server_receives_non_minimal_length_fails_1002`, `connection_frames::client_receives_non_minimal_length_fails_1002` |
//! | a length with the top bit set | 1002 | RFC 6455 §5.2 | `connection_frames::server_receives_length_with_the_top_bit_fails_1002`, `connection_frames::client_receives_length_with_the_top_bit_fails_1002` |
//! | any first two bytes with any length | matches the model | RFC 6455 §5.2 | `exhaustive::every_header_matches_the_model` |
//! | a control frame of more than 125 bytes, or without FIN | 1002 | RFC 6455 §5.5 | `connection_frames::server_receives_control_of_126_bytes_fails_1002`, `connection_frames::client_receives_control_of_126_bytes_fails_1002`, `connection_frames::server_receives_fragmented_control_fails_1002`, `connection_frames::client_receives_fragmented_control_fails_1002` |
//! | a continuation without a message in progress | 1002 | RFC 6455 §5.4 | `connection_messages::server_receives_continuation_without_message_fails_1002`, `connection_messages::client_receives_continuation_without_message_fails_1002` |
//! | a new message before the previous one is finished | 1002 | RFC 6455 §5.4 | `connection_messages::server_receives_new_message_between_fragments_fails_1002`, `connection_messages::client_receives_new_message_between_fragments_fails_1002` |
//! | a control frame between fragments | delivered immediately; the message is complete | RFC 6455 §5.4 | `connection_messages::server_receives_control_frames_between_fragments_immediately`, `connection_messages::client_receives_control_frames_between_fragments_immediately` |
//! | empty messages and fragments | legal; after 1,000 consecutive ones, 1008 | RFC 6455 §5.4 | `connection_messages::server_receives_empty_messages`, `connection_messages::client_receives_empty_messages`, `connection_messages::server_receives_too_many_empty_fragments_fails_1008`, `connection_messages::client_receives_too_many_empty_fragments_fails_1008` |
//! | a ping after a close frame | no pong | RFC 6455 §5.5.2 | `connection_control::server_receives_ping_after_close_and_does_not_answer`, `connection_control::client_receives_ping_after_close_and_does_not_answer` |
//! | an unsolicited pong | ignored | RFC 6455 §5.5.3 | `connection_control::server_receives_unsolicited_pong_and_ignores_it`, `connection_control::client_receives_unsolicited_pong_and_ignores_it` |
//! | many pings before a pong can be sent | the newest is answered | RFC 6455 §5.5.3 | `connection_control::server_receives_many_pings_and_answers_the_newest`, `connection_control::client_receives_many_pings_and_answers_the_newest` |
//! | a masking key of zeros | legal | RFC 6455 §5.3 | `connection_frames::server_receives_frame_masked_with_zeros_and_accepts_it` |
//! | any invalid UTF-8 in text, for every split | 1007 at the first invalid byte | RFC 6455 §5.6, §8.1 | `connection_messages::server_receives_text_that_is_not_utf8_fails_1007`, `connection_messages::client_receives_text_that_is_not_utf8_fails_1007`, `connection_messages::server_receives_invalid_utf8_fails_at_the_first_invalid_byte`, `connection_messages::client_receives_invalid_utf8_fails_at_the_first_invalid_byte`, `exhaustive::utf8_validation_agrees_with_the_standard_library` |
//! | text that ends inside a character | 1007 at the end of the message | RFC 6455 §8.1 | `connection_messages::server_receives_text_with_truncated_code_point_fails_1007`, `connection_messages::client_receives_text_with_truncated_code_point_fails_1007` |
//! | a message over the limit | 1009 at the header that exceeds it | RFC 6455 §7.4.1, §10.4 | `connection_messages::server_receives_header_over_the_limit_fails_1009_before_the_payload`, `connection_messages::client_receives_header_over_the_limit_fails_1009_before_the_payload` |
//! | any two consecutive frames of sixty kinds | matches the model | RFC 6455 §5 | `exhaustive::every_sequence_of_two_frames_matches_the_model` |
//!
//! ## Close frames and the end of TCP
//!
//! | input | required behavior | rule | tests |
//! |---|---|---|---|
//! | a close frame without a body | reported as 1005; the echo has no body | RFC 6455 §7.1.5 | `connection_close::server_receives_close_without_code_and_echoes_none`, `connection_close::client_receives_close_without_code_and_echoes_none` |
//! | a body of one byte | 1002 | RFC 6455 §5.5.1 | `connection_close::server_receives_close_with_a_body_of_one_byte_fails_1002`, `connection_close::client_receives_close_with_a_body_of_one_byte_fails_1002` |
//! | 0 to 999, 1004, 1005, 1006, 1015 to 2999, from 5000 | 1002 | RFC 6455 §7.4 | `connection_close::server_receives_invalid_close_code_fails_1002`, `connection_close::client_receives_invalid_close_code_fails_1002`, `exhaustive::every_close_code_is_handled_as_in_the_rfc` |
//! | the codes of the RFC and the registry, 3000 to 4999 | echoed | RFC 6455 §7.4 | `connection_close::server_receives_every_valid_close_code_and_echoes_it`, `connection_close::client_receives_every_valid_close_code_and_echoes_it` |
//! | a reason that is not UTF-8 | 1007 | RFC 6455 §5.5.1 | `connection_close::server_receives_close_reason_that_is_not_utf8_fails_1007`, `connection_close::client_receives_close_reason_that_is_not_utf8_fails_1007` |
//! | an invalid code, or a reason of 124 bytes, from the application | the call fails | RFC 6455 §5.5.1, §7.4 | `connection_close::invalid_close_is_rejected_without_effect`, `connection_close::close_reason_is_limited_to_123_bytes_in_both_directions` |
//! | data after a close frame | ignored; no data is sent | RFC 6455 §5.5.1 | `connection_close::data_after_close_is_ignored_even_if_invalid`, `connection_close::nothing_is_sent_after_a_close` |
//! | a second close frame; both at once | one close frame each | RFC 6455 §7.1 | `connection_close::server_closes_at_the_same_time_as_the_client`, `connection_close::client_closes_at_the_same_time_as_the_server`, `connection_close::first_close_of_the_application_wins` |
//! | no answer to our close frame | TCP closed after 5 s | RFC 6455 §7.1.1 | `connection_transport_end::server_times_out_waiting_for_the_close_answer`, `connection_transport_end::client_times_out_waiting_for_the_close_answer` |
//! | the end of TCP without a close frame | 1006; nothing more is sent | RFC 6455 §7.1.5 | `connection_transport_end::server_receives_end_of_tcp_without_close_is_1006`, `connection_transport_end::client_receives_end_of_tcp_without_close_is_1006` |
//! | the end of TCP inside a frame | 1006; the incomplete frame is not delivered | RFC 6455 §7.1.7 | `connection_transport_end::end_of_tcp_inside_a_frame_delivers_nothing` |
//! | the end of the closing handshake | the server closes TCP, the client waits for that | RFC 6455 §7.1.1 | `pair::client_closes_and_the_server_closes_tcp_first`, `pair::server_closes_and_closes_tcp_first`, `pair::simultaneous_close_lets_the_server_close_tcp_first` |
//! | much input after the last frame | discarded up to a limit, so that our close frame arrives | RFC 6455 §7.1.1 | `connection_transport_end::flood_while_draining_does_not_prevent_sending_our_close_frame`, `cve::cve_2024_22201_flood_while_draining_is_discarded_then_closed` |
//! | a reset in any state | reported as a value, without panic or leak | RFC 6455 §7.1.7 | `cve::cve_2022_41940_reset_in_any_state_closes_and_may_repeat`, `cve::cve_2026_129500_reset_at_any_byte_of_a_frame_is_1006` |
//!
//! ## permessage-deflate
//!
//! | input | required behavior | rule | tests |
//! |---|---|---|---|
//! | valid offers, fallbacks, quoted values | the response combines offer and configuration | RFC 7692 §5, §7.1 | `src/deflate/params::server_response_combines_the_offer_and_its_configuration`, `src/deflate/params::server_and_client_agree_for_every_pair_of_configurations` |
//! | invalid, repeated or unknown parameters | a server declines the offer, a client fails | RFC 7692 §7.1 | `cve::cve_2026_2229_invalid_parameters_decline_the_offer_on_a_server`, `cve::cve_2026_2229_invalid_parameters_fail_the_handshake_on_a_client`, `src/deflate/params::client_rejects_responses_that_do_not_match_its_offer` |
//! | the examples of the RFC: fragments, takeover, stored, final, two blocks, empty | inflated, for every split | RFC 7692 §7.2.3 | `security_table::both_roles_inflate_the_rfc_examples_for_every_split` |
//! | the examples in sequence, without takeover | references to missing data are 1007 | RFC 7692 §7.1.1 | `security_table::without_takeover_a_message_that_refers_back_fails_1007` |
//! | uncompressed messages between compressed ones, pings between their fragments | delivered | RFC 7692 §6 | `security_table::uncompressed_messages_and_pings_mix_with_compressed_messages` |
//! | any reserved bits on any opcode, with the extension | RSV1 is valid on text and binary frames, otherwise 1002 | RFC 7692 §6 | `security_table::rsv1_is_valid_only_on_the_first_frame_of_a_message` |
//! | text that inflates to invalid UTF-8 | 1007 | RFC 6455 §8.1 | `security_table::compressed_text_that_is_not_utf8_fails_1007` |
//! | data that does not inflate | 1007 | RFC 7692 §7.2.2 | `cve::cve_2026_87022_invalid_compressed_message_is_1007` |
//! | a decompression bomb | 1009; memory is bounded by the limit | RFC 6455 §10.4 | `cve::cve_2018_1000518_bomb_in_one_frame_is_limited`, `cve::cve_2026_39804_bomb_in_fragments_is_limited`, `cve::cve_2026_5680_bomb_primed_by_earlier_messages_is_limited` |
//! | a window of 8 bits | accepted; messages are sent uncompressed | RFC 7692 §7.1.2 | `security_table::window_of_8_bits_disables_compression` |
//! | guesses at a secret that is sent uncompressed | all frames have the same length | RFC 7692 §8 | `security_table::uncompressed_secret_is_sent_with_its_own_length` |
//!
//! Out of scope for this crate: TLS and ALPN, one connection attempt per address at a time, reconnect delays, resets of
//! real sockets.

#[path = "../handshake_support/mod.rs"]
mod handshake_support;

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "deflate")]
mod deflate;
mod read_buf;
mod table;
