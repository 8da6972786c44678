// The Go libraries gorilla/websocket and coder/websocket as clients of an echo server, and as servers.
//
// usage: go-websocket gorilla|coder [URL]     (without a URL: a server on a free port of 127.0.0.1)
//
// Reports JSON lines as ../report.mjs describes them; the paths of the server are those of ../ws_server.mjs. PEER_COMPRESS
// asks for permessage-deflate, PEER_CERT and PEER_KEY make the server use TLS. A client trusts the certificate PEER_CA.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
)

// event is what a client received: text, binary, a pong, or the end.
type event struct {
	kind string
	data string
	code int
}

// connection is a client's connection, of either library.
type connection interface {
	subprotocol() string
	send(kind, data string) error
	// fragments sends a message in these parts. After the first it pings with this payload, unless that is empty.
	fragments(kind string, parts []string, ping string) error
	ping(payload string) error
	close(code int, reason string) error
	// events are closed after the end.
	events() <-chan event
}

type library interface {
	dial(url string) (connection, error)
	serve(path string, response http.ResponseWriter, request *http.Request)
}

var compress = os.Getenv("PEER_COMPRESS") != ""

// trusting returns the TLS settings of a client, nil without PEER_CA.
func trusting() *tls.Config {
	path := os.Getenv("PEER_CA")
	if path == "" {
		return nil
	}
	certificate, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(certificate) {
		panic("no certificate in " + path)
	}
	return &tls.Config{RootCAs: roots}
}

func main() {
	libraries := map[string]library{"gorilla": gorilla{}, "coder": coder{}}
	library := libraries[os.Args[1]]
	if len(os.Args) > 2 {
		runClient(library, os.Args[2])
	} else {
		runServer(library)
	}
}

var output sync.Mutex

func report(value any) {
	output.Lock()
	defer output.Unlock()
	line, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", line)
}

func reportClosed(code int, reason string) {
	report(map[string]any{"closed": map[string]any{"code": code, "reason": reason}})
}

func runServer(library library) {
	mux := http.NewServeMux()
	for _, path := range []string{"/echo", "/ping", "/fragments", "/close"} {
		mux.HandleFunc(path, func(response http.ResponseWriter, request *http.Request) {
			library.serve(path, response, request)
		})
	}
	mux.HandleFunc("/refuse", func(response http.ResponseWriter, _ *http.Request) {
		response.WriteHeader(http.StatusForbidden)
		io.WriteString(response, "not here, thank you\n")
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	report(map[string]any{"listening": listener.Addr().(*net.TCPAddr).Port})
	go func() {
		// Runs until standard input closes.
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	if cert := os.Getenv("PEER_CERT"); cert != "" {
		// WebSockets need HTTP/1.1.
		server := http.Server{Handler: mux, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
		panic(server.ServeTLS(listener, cert, os.Getenv("PEER_KEY")))
	}
	panic(http.Serve(listener, mux))
}

func runClient(library library, url string) {
	failures := 0
	check := func(name string, body func() error) {
		if only := os.Getenv("PEER_ONLY"); only != "" && only != name {
			return
		}
		if err := body(); err != nil {
			failures++
			report(map[string]any{"case": name, "error": err.Error()})
			return
		}
		report(map[string]any{"case": name})
	}
	open := func() connection {
		connection, err := library.dial(url)
		if err != nil {
			panic(err)
		}
		return connection
	}
	peer := open()
	echoed := func(kind, data string) error {
		if err := peer.send(kind, data); err != nil {
			return err
		}
		return expect(peer, event{kind: kind, data: data})
	}

	check("subprotocol", func() error { return equal(peer.subprotocol(), "chat") })
	for _, size := range sizes() {
		check(fmt.Sprintf("text %d", size), func() error { return echoed("text", textOf(size)) })
		check(fmt.Sprintf("binary %d", size), func() error { return echoed("binary", bytesOf(size)) })
	}
	check("unicode", func() error { return echoed("text", "Grüße, 世界 🐟") })
	check("burst in order", func() error {
		for at := range 200 {
			if err := peer.send("text", fmt.Sprintf("message %d", at)); err != nil {
				return err
			}
		}
		for at := range 200 {
			if err := expect(peer, event{kind: "text", data: fmt.Sprintf("message %d", at)}); err != nil {
				return err
			}
		}
		return nil
	})
	check("ping", func() error {
		if err := peer.ping("are you there"); err != nil {
			return err
		}
		return expect(peer, event{kind: "pong", data: "are you there"})
	})
	fragmented := func(kind string, parts []string, ping string) error {
		if err := peer.fragments(kind, parts, ping); err != nil {
			return err
		}
		if ping != "" {
			if err := expect(peer, event{kind: "pong", data: ping}); err != nil {
				return err
			}
		}
		return expect(peer, event{kind: kind, data: strings.Join(parts, "")})
	}
	check("fragmented text", func() error {
		// The split is in the middle of a character.
		return fragmented("text", []string{textOf(1000) + "\xc3", "\xbcber den Fluß"}, "")
	})
	check("fragmented binary", func() error {
		data, parts := bytesOf(30000), []string{}
		for at := 0; at < len(data); at += 1000 {
			parts = append(parts, data[at:at+1000])
		}
		return fragmented("binary", parts, "")
	})
	check("ping between fragments", func() error {
		return fragmented("text", []string{textOf(1000), " second"}, "between")
	})
	check("close with code and reason", func() error {
		if err := peer.close(3001, "done here"); err != nil {
			return err
		}
		// The server returns the code; returning the reason is optional.
		return expectClose(peer, 3001)
	})
	check("too big", func() error {
		other := open()
		size, _ := strconv.Atoi(os.Getenv("PEER_TOO_BIG"))
		// The server may close before it has read everything, and then the send itself may fail.
		other.send("text", textOf(size))
		return expectClose(other, 1009)
	})
	check("shutdown", func() error {
		other := open()
		if err := other.send("text", "still here"); err != nil {
			return err
		}
		if err := expect(other, event{kind: "text", data: "still here"}); err != nil {
			return err
		}
		report(map[string]any{"waiting": "shutdown"})
		return expectClose(other, 1001)
	})
	if failures > 0 {
		os.Exit(1)
	}
}

func expect(peer connection, expected event) error {
	return equal(<-peer.events(), expected)
}

func expectClose(peer connection, code int) error {
	received := <-peer.events()
	received.data = ""
	return equal(received, event{kind: "close", code: code})
}

func equal[T comparable](got, expected T) error {
	if got == expected {
		return nil
	}
	return fmt.Errorf("got %.200v, expected %.200v", got, expected)
}

func sizes() (sizes []int) {
	for _, text := range strings.Split(os.Getenv("PEER_SIZES"), ",") {
		size, err := strconv.Atoi(text)
		if err != nil {
			panic(err)
		}
		sizes = append(sizes, size)
	}
	return sizes
}

// textOf returns a text of this size in which a lost or moved byte shows.
func textOf(size int) string {
	var text strings.Builder
	for count := 0; text.Len() < size; count++ {
		text.WriteString(strconv.FormatInt(int64(count), 36) + " ")
	}
	return text.String()[:size]
}

// bytesOf returns bytes that cover all values and do not repeat with a power of two.
func bytesOf(size int) string {
	bytes := make([]byte, size)
	for at := range bytes {
		bytes[at] = byte(at*7 + (at >> 8))
	}
	return string(bytes)
}
