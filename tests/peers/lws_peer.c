// libwebsockets as a client of an echo server, and as a server.
// usage: lws_peer [URL]     (without a URL: a server on a free port of 127.0.0.1)
// Reports JSON lines as report.mjs describes them; the paths of the server are those of ws_server.mjs. PEER_COMPRESS asks
// for permessage-deflate, PEER_CERT and PEER_KEY make the server use TLS. For wss:// a client trusts the certificate PEER_CA.

#include <libwebsockets.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A frame that waits to be written.
struct frame {
    struct frame *next;
    enum lws_write_protocol kind;
    size_t len;
    unsigned char data[]; // LWS_PRE bytes, then the payload
};

// What arrived: 't'ext, 'b'inary, 'p'ong, 'c'lose.
struct event {
    struct event *next;
    char kind;
    int code;
    size_t len;
    char data[];
};

// A connection. On a server, libwebsockets allocates it, zeroed.
struct peer {
    struct lws *wsi;
    struct frame *frames;
    struct frame *written; // the library may still compress from it, until the connection is writable again
    struct event *events;
    char path[32];
    char *message;
    size_t message_len;
    int is_open, is_ended;
    int close_code; // to send once all frames are written
    const char *close_reason;
    int received_code;
    char received_reason[124];
};

static struct lws_context *context;

static void *allocated(size_t len) {
    void *memory = calloc(1, len);
    if (memory == NULL) abort();
    return memory;
}

static void report(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
}

static void queue(struct peer *peer, int kind, const void *data, size_t len) {
    struct frame *frame = allocated(sizeof(*frame) + LWS_PRE + len + 1);
    frame->kind = (enum lws_write_protocol)kind;
    frame->len = len;
    memcpy(frame->data + LWS_PRE, data, len);
    struct frame **end = &peer->frames;
    while (*end) end = &(*end)->next;
    *end = frame;
    lws_callback_on_writable(peer->wsi);
}

static void push(struct peer *peer, char kind, int code, const void *data, size_t len) {
    struct event *event = allocated(sizeof(*event) + len + 1);
    event->kind = kind;
    event->code = code;
    event->len = len;
    memcpy(event->data, data, len);
    struct event **end = &peer->events;
    while (*end) end = &(*end)->next;
    *end = event;
}

// Sends a message in three fragments, with a ping after the first.
static void queue_fragments(struct peer *peer, int kind, const char *data, size_t len) {
    size_t third = len / 3;
    queue(peer, kind | LWS_WRITE_NO_FIN, data, third);
    queue(peer, LWS_WRITE_PING, "between", 7);
    queue(peer, LWS_WRITE_CONTINUATION | LWS_WRITE_NO_FIN, data + third, third);
    queue(peer, LWS_WRITE_CONTINUATION, data + 2 * third, len - 2 * third);
}

static void server_message(struct peer *peer, int kind) {
    if (strcmp(peer->path, "/echo") == 0) {
        queue(peer, kind, peer->message, peer->message_len);
    } else if (strcmp(peer->path, "/fragments") == 0) {
        queue_fragments(peer, kind, peer->message, peer->message_len);
    } else if (strcmp(peer->path, "/ping") == 0) {
        queue(peer, LWS_WRITE_PING, peer->message, peer->message_len);
    } else if (strcmp(peer->path, "/close") == 0) {
        peer->close_code = 3005;
        peer->close_reason = "that is all";
        lws_callback_on_writable(peer->wsi);
    }
}

// Writes the next frame. Returns nonzero to close the connection.
static int write_next(struct peer *peer) {
    free(peer->written);
    peer->written = NULL;
    struct frame *frame = peer->frames;
    if (frame == NULL) {
        if (peer->close_code == 0) return 0;
        lws_close_reason(peer->wsi, (enum lws_close_status)peer->close_code, (unsigned char *)peer->close_reason,
                         strlen(peer->close_reason));
        return -1;
    }
    int written = lws_write(peer->wsi, frame->data + LWS_PRE, frame->len, frame->kind);
    peer->frames = frame->next;
    peer->written = frame;
    if (written < 0) return -1;
    if (peer->frames || peer->close_code) lws_callback_on_writable(peer->wsi);
    return 0;
}

static int callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len) {
    struct peer *peer = user;
    int is_server = lws_get_protocol(wsi) && lws_get_protocol(wsi)->id == 1;
    switch (reason) {
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION: {
        char path[32] = "";
        lws_hdr_copy(wsi, path, sizeof(path), WSI_TOKEN_GET_URI);
        if (strcmp(path, "/refuse") == 0) {
            // Answered here, because the library's own answer has no body of ours.
            const char *answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 20\r\nConnection: close\r\n\r\n"
                                 "not here, thank you\n";
            if (write(lws_get_socket_fd(wsi), answer, strlen(answer)) < 0) return -1;
            return -1;
        }
        return 0;
    }
    case LWS_CALLBACK_ESTABLISHED:
        peer->wsi = wsi;
        lws_hdr_copy(wsi, peer->path, sizeof(peer->path), WSI_TOKEN_GET_URI);
        return 0;
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        peer->is_open = 1;
        return 0;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        fprintf(stderr, "cannot connect: %s\n", in ? (char *)in : "?");
        exit(1);
    case LWS_CALLBACK_RECEIVE:
    case LWS_CALLBACK_CLIENT_RECEIVE: {
        peer->message = realloc(peer->message, peer->message_len + len + 1);
        if (peer->message == NULL) abort();
        memcpy(peer->message + peer->message_len, in, len);
        peer->message_len += len;
        if (!lws_is_final_fragment(wsi)) return 0;
        int is_binary = lws_frame_is_binary(wsi);
        if (is_server) {
            server_message(peer, is_binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT);
        } else {
            push(peer, is_binary ? 'b' : 't', 0, peer->message, peer->message_len);
        }
        peer->message_len = 0;
        return 0;
    }
    case LWS_CALLBACK_RECEIVE_PONG:
    case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
        if (!is_server) {
            push(peer, 'p', 0, in, len);
        } else if (strcmp(peer->path, "/ping") == 0) {
            char text[140];
            int text_len = snprintf(text, sizeof(text), "pong %.*s", (int)len, (char *)in);
            queue(peer, LWS_WRITE_TEXT, text, (size_t)text_len);
        }
        return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        peer->received_code = 1005;
        if (len >= 2) {
            unsigned char *payload = in;
            peer->received_code = payload[0] << 8 | payload[1];
            snprintf(peer->received_reason, sizeof(peer->received_reason), "%.*s", (int)len - 2, (char *)payload + 2);
        }
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        return write_next(peer);
    case LWS_CALLBACK_CLOSED:
        report("{\"closed\":{\"code\":%d,\"reason\":\"%s\"}}",
               peer->received_code ? peer->received_code : peer->close_code ? peer->close_code : 1006,
               peer->received_reason);
        free(peer->message);
        return 0;
    case LWS_CALLBACK_CLIENT_CLOSED:
        // The library does not tell the code with which the server answers a close of this side.
        push(peer, 'c', peer->received_code ? peer->received_code : peer->close_code, "", 0);
        peer->is_ended = 1;
        return 0;
    default:
        return 0;
    }
}

static const struct lws_protocols server_protocols[] = {
    {"chat", callback, sizeof(struct peer), 65536, 1, NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, 0},
};

static const struct lws_protocols client_protocols[] = {
    {"chat", callback, 0, 65536, 2, NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, 0},
};

static const struct lws_extension extensions[] = {
    {"permessage-deflate", lws_extension_callback_pm_deflate, "permessage-deflate; client_max_window_bits"},
    {NULL, NULL, NULL},
};

static void make_context(const struct lws_protocols *protocols, int port) {
    struct lws_context_creation_info info = {0};
    info.port = port;
    info.iface = port == CONTEXT_PORT_NO_LISTEN ? NULL : "127.0.0.1";
    info.protocols = protocols;
    info.extensions = getenv("PEER_COMPRESS") ? extensions : NULL;
    info.options = LWS_SERVER_OPTION_VALIDATE_UTF8;
    if (getenv("PEER_CA") || getenv("PEER_CERT")) {
        info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
        info.alpn = "http/1.1";
        info.client_ssl_ca_filepath = getenv("PEER_CA");
        info.ssl_cert_filepath = getenv("PEER_CERT");
        info.ssl_private_key_filepath = getenv("PEER_KEY");
    }
    info.gid = info.uid = (unsigned)-1;
    lws_set_log_level(LLL_ERR, NULL);
    context = lws_create_context(&info);
    if (context == NULL) abort();
}

static void run_server(void) {
    make_context(server_protocols, 0);
    report("{\"listening\":%d}", lws_get_vhost_listen_port(lws_get_vhost_by_name(context, "default")));
    while (lws_service(context, 0) >= 0) {
    }
}

static char *host, *path;
static int port, is_secure;

static struct peer *opened(void) {
    struct peer *peer = allocated(sizeof(*peer));
    struct lws_client_connect_info info = {0};
    info.context = context;
    info.address = info.host = host;
    if (is_secure) {
        info.ssl_connection = LCCSCF_USE_SSL;
        // The library compares names in certificates, not addresses.
        info.host = "localhost";
    }
    info.port = port;
    info.path = path;
    info.protocol = "chat,superchat";
    info.userdata = peer;
    peer->wsi = lws_client_connect_via_info(&info);
    while (!peer->is_open && lws_service(context, 0) >= 0) {
    }
    return peer;
}

static const char *failure;
static int failures;

static int expect(struct peer *peer, char kind, int code, const char *data, size_t len) {
    while (peer->events == NULL && lws_service(context, 0) >= 0) {
    }
    struct event *event = peer->events;
    peer->events = event->next;
    int is_same = event->kind == kind && event->code == code && event->len == len && memcmp(event->data, data, len) == 0;
    if (!is_same) {
        static char text[200];
        snprintf(text, sizeof(text), "got %c, code %d, %zu bytes", event->kind, event->code, event->len);
        failure = text;
    }
    free(event);
    return is_same;
}

static char *text_of(size_t size) {
    char *text = allocated(size + 32);
    size_t len = 0;
    for (int count = 0; len < size; count++) len += (size_t)sprintf(text + len, "%x ", count);
    return text;
}

static char *bytes_of(size_t size) {
    char *bytes = allocated(size + 1);
    for (size_t at = 0; at < size; at++) bytes[at] = (char)(at * 7 + (at >> 8));
    return bytes;
}

static int is_chosen(const char *name) {
    const char *only = getenv("PEER_ONLY");
    failure = NULL;
    return only == NULL || strcmp(only, name) == 0;
}

static void done(const char *name) {
    if (failure) {
        failures++;
        report("{\"case\":\"%s\",\"error\":\"%s\"}", name, failure);
    } else {
        report("{\"case\":\"%s\"}", name);
    }
}

static int run_client(char *url) {
    // ws://host:port/path or wss://host:port/path
    is_secure = strncmp(url, "wss", 3) == 0;
    host = strstr(url, "://") + 3;
    char *slash = strchr(host, '/');
    path = strdup(slash);
    *slash = 0;
    char *colon = strchr(host, ':');
    *colon = 0;
    port = atoi(colon + 1);
    make_context(client_protocols, CONTEXT_PORT_NO_LISTEN);
    struct peer *peer = opened();

    if (is_chosen("subprotocol")) {
        if (strcmp(lws_get_protocol(peer->wsi)->name, "chat") != 0) failure = "another subprotocol";
        done("subprotocol");
    }
    for (char *rest = getenv("PEER_SIZES"); rest; rest = strchr(rest, ',') ? strchr(rest, ',') + 1 : NULL) {
        size_t size = (size_t)atol(rest);
        char name[40];
        snprintf(name, sizeof(name), "text %zu", size);
        if (is_chosen(name)) {
            char *text = text_of(size);
            queue(peer, LWS_WRITE_TEXT, text, size);
            expect(peer, 't', 0, text, size);
            done(name);
            free(text);
        }
        snprintf(name, sizeof(name), "binary %zu", size);
        if (is_chosen(name)) {
            char *bytes = bytes_of(size);
            queue(peer, LWS_WRITE_BINARY, bytes, size);
            expect(peer, 'b', 0, bytes, size);
            done(name);
            free(bytes);
        }
    }
    if (is_chosen("unicode")) {
        const char *text = "Grüße, 世界 🐟";
        queue(peer, LWS_WRITE_TEXT, text, strlen(text));
        expect(peer, 't', 0, text, strlen(text));
        done("unicode");
    }
    if (is_chosen("burst in order")) {
        char text[32];
        for (int at = 0; at < 200; at++) queue(peer, LWS_WRITE_TEXT, text, (size_t)sprintf(text, "message %d", at));
        for (int at = 0; at < 200; at++) {
            size_t len = (size_t)sprintf(text, "message %d", at);
            if (!expect(peer, 't', 0, text, len)) break;
        }
        done("burst in order");
    }
    if (is_chosen("ping")) {
        queue(peer, LWS_WRITE_PING, "are you there", 13);
        expect(peer, 'p', 0, "are you there", 13);
        done("ping");
    }
    if (is_chosen("fragmented text")) {
        // The split is in the middle of a character.
        queue(peer, LWS_WRITE_TEXT | LWS_WRITE_NO_FIN, "\xc3", 1);
        queue(peer, LWS_WRITE_CONTINUATION | LWS_WRITE_NO_FIN, "", 0);
        queue(peer, LWS_WRITE_CONTINUATION, "\xbc" "ber den Fluß", strlen("\xbc" "ber den Fluß"));
        expect(peer, 't', 0, "über den Fluß", strlen("über den Fluß"));
        done("fragmented text");
    }
    if (is_chosen("fragmented binary")) {
        char *bytes = bytes_of(3000);
        for (size_t at = 0; at < 3000; at += 100) {
            int kind = at == 0 ? LWS_WRITE_BINARY : LWS_WRITE_CONTINUATION;
            queue(peer, kind | (at + 100 == 3000 ? 0 : LWS_WRITE_NO_FIN), bytes + at, 100);
        }
        expect(peer, 'b', 0, bytes, 3000);
        done("fragmented binary");
        free(bytes);
    }
    if (is_chosen("ping between fragments")) {
        queue(peer, LWS_WRITE_TEXT | LWS_WRITE_NO_FIN, "first ", 6);
        queue(peer, LWS_WRITE_PING, "between", 7);
        queue(peer, LWS_WRITE_CONTINUATION, "second", 6);
        if (expect(peer, 'p', 0, "between", 7)) expect(peer, 't', 0, "first second", 12);
        done("ping between fragments");
    }
    if (is_chosen("close with code and reason")) {
        peer->close_code = 3001;
        peer->close_reason = "done here";
        lws_callback_on_writable(peer->wsi);
        expect(peer, 'c', 3001, "", 0);
        done("close with code and reason");
    }
    if (is_chosen("too big")) {
        struct peer *other = opened();
        size_t size = (size_t)atol(getenv("PEER_TOO_BIG"));
        char *text = text_of(size);
        queue(other, LWS_WRITE_TEXT, text, size);
        expect(other, 'c', 1009, "", 0);
        done("too big");
        free(text);
    }
    if (is_chosen("shutdown")) {
        struct peer *other = opened();
        queue(other, LWS_WRITE_TEXT, "still here", 10);
        if (expect(other, 't', 0, "still here", 10)) {
            report("{\"waiting\":\"shutdown\"}");
            expect(other, 'c', 1001, "", 0);
        }
        done("shutdown");
    }
    return failures == 0 ? 0 : 1;
}

int main(int count, char **arguments) {
    if (count > 1) return run_client(arguments[1]);
    run_server();
}
