package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/coder/websocket"
)

// coder is github.com/coder/websocket.
type coder struct{}

type coderConnection struct {
	*websocket.Conn
	received chan event
}

var coderKinds = map[string]websocket.MessageType{"text": websocket.MessageText, "binary": websocket.MessageBinary}

func coderCompression() websocket.CompressionMode {
	if compress {
		return websocket.CompressionContextTakeover
	}
	return websocket.CompressionDisabled
}

func (coder) dial(url string) (connection, error) {
	// With TLS settings of its own, the transport offers no HTTP/2.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trusting()}}
	inner, _, err := websocket.Dial(context.Background(), url, &websocket.DialOptions{
		HTTPClient:      client,
		Subprotocols:    []string{"chat", "superchat"},
		CompressionMode: coderCompression(),
	})
	if err != nil {
		return nil, err
	}
	inner.SetReadLimit(-1)
	peer := &coderConnection{inner, make(chan event, 1000)}
	go peer.read()
	return peer, nil
}

func (peer *coderConnection) read() {
	defer close(peer.received)
	for {
		kind, data, err := peer.Read(context.Background())
		if err != nil {
			code, reason := coderEnd(err)
			peer.received <- event{kind: "close", code: code, data: reason}
			return
		}
		name := "binary"
		if kind == websocket.MessageText {
			name = "text"
		}
		peer.received <- event{kind: name, data: string(data)}
	}
}

func coderEnd(err error) (int, string) {
	var closed websocket.CloseError
	if errors.As(err, &closed) {
		return int(closed.Code), closed.Reason
	}
	return 1006, err.Error()
}

func (peer *coderConnection) subprotocol() string  { return peer.Subprotocol() }
func (peer *coderConnection) events() <-chan event { return peer.received }

func (peer *coderConnection) send(kind, data string) error {
	return peer.Write(context.Background(), coderKinds[kind], []byte(data))
}

func (peer *coderConnection) fragments(kind string, parts []string, ping string) error {
	return coderFragments(peer.Conn, coderKinds[kind], parts, func() error {
		if ping == "" {
			return nil
		}
		return peer.ping(ping)
	})
}

// coderFragments sends each part as a frame, because the library sends one for each write.
func coderFragments(peer *websocket.Conn, kind websocket.MessageType, parts []string, between func() error) error {
	writer, err := peer.Writer(context.Background(), kind)
	if err != nil {
		return err
	}
	for at, part := range parts {
		if _, err := writer.Write([]byte(part)); err != nil {
			return err
		}
		if at == 0 {
			if err := between(); err != nil {
				return err
			}
		}
	}
	return writer.Close()
}

// ping waits for the pong. Its payload is the library's own, and checked by it.
func (peer *coderConnection) ping(payload string) error {
	if err := peer.Ping(context.Background()); err != nil {
		return err
	}
	peer.received <- event{kind: "pong", data: payload}
	return nil
}

// close returns once the server has answered. The library does not return the code of the answer.
func (peer *coderConnection) close(code int, reason string) error {
	if err := peer.Close(websocket.StatusCode(code), reason); err != nil {
		return err
	}
	// What the reader saw is that this side closed.
	for range peer.received {
	}
	peer.received = make(chan event, 1)
	peer.received <- event{kind: "close", code: code}
	return nil
}

func (coder) serve(path string, response http.ResponseWriter, request *http.Request) {
	peer, err := websocket.Accept(response, request, &websocket.AcceptOptions{
		Subprotocols:    []string{"chat"},
		CompressionMode: coderCompression(),
	})
	if err != nil {
		reportClosed(0, err.Error())
		return
	}
	defer peer.CloseNow()
	peer.SetReadLimit(-1)
	ctx := context.Background()
	for {
		kind, data, err := peer.Read(ctx)
		if err == nil {
			switch path {
			case "/echo":
				err = peer.Write(ctx, kind, data)
			case "/ping":
				// Waits for the pong, which this loop reads.
				go func() {
					if peer.Ping(ctx) == nil {
						peer.Write(ctx, kind, []byte("pong "+string(data)))
					}
				}()
			case "/close":
				if err = peer.Close(3005, "that is all"); err == nil {
					reportClosed(3005, "")
					return
				}
			case "/fragments":
				third := len(data) / 3
				parts := []string{string(data[:third]), string(data[third : 2*third]), string(data[2*third:])}
				err = coderFragments(peer, kind, parts, func() error { return nil })
			}
		}
		if err != nil {
			code, reason := coderEnd(err)
			reportClosed(code, reason)
			return
		}
	}
}
