// Boost.Beast as a client of an echo server, and as a server.
// usage: beast_peer [URL]     (without a URL: a server on a free port of 127.0.0.1)
// Reports JSON lines as report.mjs describes them; the paths of the server are those of ws_server.mjs. PEER_COMPRESS asks
// for permessage-deflate, PEER_CERT and PEER_KEY make the server use TLS. For wss:// a client trusts the certificate PEER_CA.

#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast.hpp>
#include <boost/beast/ssl.hpp>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
namespace ssl = boost::asio::ssl;
using tcp = boost::asio::ip::tcp;
using Tls = beast::ssl_stream<tcp::socket>;

static void report(const std::string& line) {
    static std::mutex output;
    std::lock_guard<std::mutex> lock(output);
    std::cout << line << std::endl;
}

static std::string quoted(const std::string& text) {
    std::string quoted = "\"";
    for (char letter : text) {
        quoted += letter < ' ' || letter == '"' || letter == '\\' ? '?' : letter;
    }
    return quoted + "\"";
}

template <class Stream>
static void configure(websocket::stream<Stream>& ws) {
    websocket::permessage_deflate deflate;
    deflate.client_enable = deflate.server_enable = std::getenv("PEER_COMPRESS") != nullptr;
    ws.set_option(deflate);
    ws.read_message_max(64 << 20);
}

static void equal(const std::string& got, const std::string& expected) {
    if (got != expected) throw std::runtime_error("got " + got.substr(0, 200));
}

// A text in which a lost or moved byte shows.
static std::string text_of(std::size_t size) {
    std::string text;
    for (int count = 0; text.size() < size; count++) text += std::to_string(count) + " ";
    return text.substr(0, size);
}

// Bytes that cover all values and do not repeat with a power of two.
static std::string bytes_of(std::size_t size) {
    std::string bytes(size, 0);
    for (std::size_t at = 0; at < size; at++) bytes[at] = static_cast<char>(at * 7 + (at >> 8));
    return bytes;
}

// A client's connection over TCP or TLS. Pongs arrive while a message or the end is read.
template <class Stream>
class Client {
public:
    Client(Stream stream, const std::string& host, const std::string& path) : ws(std::move(stream)) {
        configure(ws);
        ws.set_option(websocket::stream_base::decorator([](websocket::request_type& request) {
            request.set(http::field::sec_websocket_protocol, "chat, superchat");
        }));
        ws.control_callback([this](websocket::frame_type kind, beast::string_view payload) {
            if (kind == websocket::frame_type::pong) pong = std::string(payload);
        });
        websocket::response_type response;
        ws.handshake(response, host, path);
        subprotocol = std::string(response[http::field::sec_websocket_protocol]);
    }

    void send(bool is_text, const std::string& message) {
        ws.text(is_text);
        ws.write(boost::asio::buffer(message));
    }

    void expect(bool is_text, const std::string& message) {
        beast::flat_buffer buffer;
        ws.read(buffer);
        if (ws.got_text() != is_text) throw std::runtime_error("the kind differs");
        equal(beast::buffers_to_string(buffer.data()), message);
    }

    // Sends a part of a message as a frame of its own.
    void fragment(bool is_text, const std::string& part, bool is_last) {
        ws.text(is_text);
        ws.write_some(is_last, boost::asio::buffer(part));
    }

    // Reads until the end. Returns the received close code.
    int end() {
        beast::error_code error;
        while (!error) {
            beast::flat_buffer buffer;
            ws.read(buffer, error);
        }
        if (error != websocket::error::closed) throw std::runtime_error(error.message());
        return ws.reason().code;
    }

    websocket::stream<Stream> ws;
    std::string subprotocol;
    std::string pong;
};

// `connect` returns a stream that is connected to the host.
template <class Connect>
static int run_client(const std::string& host, const std::string& path, Connect connect) {
    auto open = [&] { return std::make_unique<Client<decltype(connect())>>(connect(), host, path); };
    int failures = 0;
    auto check = [&](const std::string& name, const std::function<void()>& body) {
        const char* only = std::getenv("PEER_ONLY");
        if (only && only != name) return;
        try {
            body();
            report("{\"case\":" + quoted(name) + "}");
        } catch (const std::exception& error) {
            failures++;
            report("{\"case\":" + quoted(name) + ",\"error\":" + quoted(error.what()) + "}");
        }
    };
    auto peer = open();
    auto echoed = [&](bool is_text, const std::string& message) {
        peer->send(is_text, message);
        peer->expect(is_text, message);
    };

    check("subprotocol", [&] { equal(peer->subprotocol, "chat"); });
    std::string sizes = std::getenv("PEER_SIZES");
    for (std::size_t at = 0; at < sizes.size(); at = sizes.find(',', at) + 1) {
        const std::size_t size = std::stoul(sizes.substr(at));
        check("text " + std::to_string(size), [&] { echoed(true, text_of(size)); });
        check("binary " + std::to_string(size), [&] { echoed(false, bytes_of(size)); });
        if (sizes.find(',', at) == std::string::npos) break;
    }
    check("unicode", [&] { echoed(true, "Grüße, 世界 🐟"); });
    check("burst in order", [&] {
        for (int at = 0; at < 200; at++) peer->send(true, "message " + std::to_string(at));
        for (int at = 0; at < 200; at++) peer->expect(true, "message " + std::to_string(at));
    });
    check("ping", [&] {
        peer->ws.ping("are you there");
        // The pong is read before the echo.
        echoed(true, "after the ping");
        equal(peer->pong, "are you there");
    });
    check("fragmented text", [&] {
        // The split is in the middle of a character.
        peer->fragment(true, "\xc3", false);
        peer->fragment(true, "", false);
        peer->fragment(true, "\xbc" "ber den Fluß", true);
        peer->expect(true, "über den Fluß");
    });
    check("fragmented binary", [&] {
        const std::string bytes = bytes_of(3000);
        for (std::size_t at = 0; at < 3000; at += 100) peer->fragment(false, bytes.substr(at, 100), at + 100 == 3000);
        peer->expect(false, bytes);
    });
    check("ping between fragments", [&] {
        peer->fragment(true, "first ", false);
        peer->ws.ping("between");
        peer->fragment(true, "second", true);
        peer->expect(true, "first second");
        equal(peer->pong, "between");
    });
    check("close with code and reason", [&] {
        peer->ws.close({websocket::close_code(3001), "done here"});
        // The server returns the code; returning the reason is optional.
        equal(std::to_string(peer->ws.reason().code), "3001");
    });
    check("too big", [&] {
        auto other = open();
        other->send(true, text_of(std::stoul(std::getenv("PEER_TOO_BIG"))));
        equal(std::to_string(other->end()), "1009");
    });
    check("shutdown", [&] {
        auto other = open();
        other->send(true, "still here");
        other->expect(true, "still here");
        report("{\"waiting\":\"shutdown\"}");
        equal(std::to_string(other->end()), "1001");
    });
    return failures == 0 ? 0 : 1;
}

static int run_client(const std::string& url) {
    const std::size_t start = url.find("://") + 3, slash = url.find('/', start);
    const std::string host = url.substr(start, slash - start);
    const std::string path = slash == std::string::npos ? "/" : url.substr(slash);
    const std::string name = host.substr(0, host.find(':'));
    boost::asio::io_context context;
    auto connect = [&] {
        tcp::socket socket(context);
        boost::asio::connect(socket, tcp::resolver(context).resolve(name, host.substr(name.size() + 1)));
        return socket;
    };
    if (url.compare(0, 3, "wss") != 0) return run_client(host, path, connect);
    ssl::context settings(ssl::context::tls_client);
    settings.load_verify_file(std::getenv("PEER_CA"));
    settings.set_verify_mode(ssl::verify_peer);
    settings.set_verify_callback(ssl::host_name_verification(name));
    return run_client(host, path, [&] {
        Tls tls(connect(), settings);
        tls.handshake(ssl::stream_base::client);
        return tls;
    });
}

template <class Stream>
static void serve_connection(boost::asio::io_context& context, Stream stream) {
    beast::flat_buffer buffer;
    http::request<http::string_body> request;
    http::read(stream, buffer, request);
    const std::string path(request.target());
    if (path == "/refuse") {
        http::response<http::string_body> response(http::status::forbidden, request.version());
        response.body() = "not here, thank you\n";
        response.keep_alive(false);
        response.prepare_payload();
        http::write(stream, response);
        return;
    }
    websocket::stream<Stream> ws(std::move(stream));
    configure(ws);
    ws.set_option(websocket::stream_base::decorator([&](websocket::response_type& response) {
        if (request[http::field::sec_websocket_protocol].find("chat") != beast::string_view::npos) {
            response.set(http::field::sec_websocket_protocol, "chat");
        }
    }));
    std::string pong;
    ws.control_callback([&](websocket::frame_type kind, beast::string_view payload) {
        if (kind == websocket::frame_type::pong) pong = std::string(payload);
    });
    ws.accept(request);
    std::string pinged;
    beast::error_code error;
    while (true) {
        // Not synchronous, so that a pong is noticed before the next message.
        beast::flat_buffer message;
        bool is_done = false;
        ws.async_read(message, [&](beast::error_code result, std::size_t) {
            error = result;
            is_done = true;
        });
        for (context.restart(); !is_done && context.run_one() > 0;) {
            if (!pinged.empty() && pong == pinged) {
                ws.text(true);
                ws.write(boost::asio::buffer("pong " + pong));
                pinged.clear();
            }
        }
        if (error) break;
        ws.text(ws.got_text());
        const std::string data = beast::buffers_to_string(message.data());
        if (path == "/echo") {
            ws.write(boost::asio::buffer(data), error);
        } else if (path == "/close") {
            ws.close({websocket::close_code(3005), "that is all"}, error);
            report("{\"closed\":{\"code\":" + std::to_string(ws.reason().code) + ",\"reason\":\"\"}}");
            return;
        } else if (path == "/fragments") {
            const std::size_t third = data.size() / 3;
            ws.write_some(false, boost::asio::buffer(data.substr(0, third)), error);
            ws.ping("between");
            ws.write_some(false, boost::asio::buffer(data.substr(third, third)), error);
            ws.write_some(true, boost::asio::buffer(data.substr(2 * third)), error);
        } else if (path == "/ping") {
            pinged = data;
            ws.ping(websocket::ping_data(data));
        }
    }
    const int code = error == websocket::error::closed ? int(ws.reason().code) : 1006;
    const std::string reason(ws.reason().reason.data(), ws.reason().reason.size());
    report("{\"closed\":{\"code\":" + std::to_string(code) + ",\"reason\":" + quoted(reason) + "}}");
}

static void run_server() {
    boost::asio::io_context context;
    tcp::acceptor acceptor(context, {boost::asio::ip::make_address("127.0.0.1"), 0});
    report("{\"listening\":" + std::to_string(acceptor.local_endpoint().port()) + "}");
    // Runs until standard input closes.
    std::thread([] {
        while (std::cin.get() != EOF) {
        }
        std::_Exit(0);
    }).detach();
    ssl::context settings(ssl::context::tls_server);
    const char* certificate = std::getenv("PEER_CERT");
    if (certificate) {
        settings.use_certificate_chain_file(certificate);
        settings.use_private_key_file(std::getenv("PEER_KEY"), ssl::context::pem);
    }
    while (true) {
        auto context = std::make_shared<boost::asio::io_context>();
        tcp::socket tcp = acceptor.accept(*context);
        std::thread([&settings, certificate, context, tcp = std::move(tcp)]() mutable {
            try {
                if (certificate) {
                    Tls tls(std::move(tcp), settings);
                    tls.handshake(ssl::stream_base::server);
                    serve_connection(*context, std::move(tls));
                } else {
                    serve_connection(*context, std::move(tcp));
                }
            } catch (const std::exception& error) {
                std::cerr << error.what() << std::endl;
            }
        }).detach();
    }
}

int main(int count, char** arguments) {
    if (count > 1) return run_client(arguments[1]);
    run_server();
}
