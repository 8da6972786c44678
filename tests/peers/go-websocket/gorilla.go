package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// gorilla is github.com/gorilla/websocket.
type gorilla struct{}

type gorillaConnection struct {
	*websocket.Conn
	received chan event
}

var gorillaKinds = map[string]int{"text": websocket.TextMessage, "binary": websocket.BinaryMessage}

func (gorilla) dial(url string) (connection, error) {
	dialer := websocket.Dialer{
		Subprotocols:      []string{"chat", "superchat"},
		EnableCompression: compress,
		TLSClientConfig:   trusting(),
		// A message that is written in parts is sent in fragments of this size.
		WriteBufferSize: 512,
	}
	inner, _, err := dialer.Dial(url, nil)
	if err != nil {
		return nil, err
	}
	peer := &gorillaConnection{inner, make(chan event, 1000)}
	inner.SetPongHandler(func(payload string) error {
		peer.received <- event{kind: "pong", data: payload}
		return nil
	})
	go peer.read()
	return peer, nil
}

func (peer *gorillaConnection) read() {
	defer close(peer.received)
	for {
		kind, data, err := peer.ReadMessage()
		if err != nil {
			code, reason := gorillaEnd(err)
			peer.received <- event{kind: "close", code: code, data: reason}
			return
		}
		name := "binary"
		if kind == websocket.TextMessage {
			name = "text"
		}
		peer.received <- event{kind: name, data: string(data)}
	}
}

func gorillaEnd(err error) (int, string) {
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		return closed.Code, closed.Text
	}
	return 1006, err.Error()
}

func (peer *gorillaConnection) subprotocol() string  { return peer.Subprotocol() }
func (peer *gorillaConnection) events() <-chan event { return peer.received }

func (peer *gorillaConnection) send(kind, data string) error {
	return peer.WriteMessage(gorillaKinds[kind], []byte(data))
}

func (peer *gorillaConnection) fragments(kind string, parts []string, ping string) error {
	return gorillaFragments(peer.Conn, gorillaKinds[kind], parts, ping)
}

func gorillaFragments(peer *websocket.Conn, kind int, parts []string, ping string) error {
	writer, err := peer.NextWriter(kind)
	if err != nil {
		return err
	}
	for at, part := range parts {
		if _, err := writer.Write([]byte(part)); err != nil {
			return err
		}
		if at == 0 && ping != "" {
			if err := gorillaControl(peer, websocket.PingMessage, []byte(ping)); err != nil {
				return err
			}
		}
	}
	return writer.Close()
}

func gorillaControl(peer *websocket.Conn, kind int, payload []byte) error {
	return peer.WriteControl(kind, payload, time.Now().Add(10*time.Second))
}

func (peer *gorillaConnection) ping(payload string) error {
	return gorillaControl(peer.Conn, websocket.PingMessage, []byte(payload))
}

func (peer *gorillaConnection) close(code int, reason string) error {
	return gorillaControl(peer.Conn, websocket.CloseMessage, websocket.FormatCloseMessage(code, reason))
}

func (gorilla) serve(path string, response http.ResponseWriter, request *http.Request) {
	upgrader := websocket.Upgrader{Subprotocols: []string{"chat"}, EnableCompression: compress, WriteBufferSize: 4096}
	peer, err := upgrader.Upgrade(response, request, nil)
	if err != nil {
		reportClosed(0, err.Error())
		return
	}
	defer peer.Close()
	peer.SetPongHandler(func(payload string) error {
		if path != "/ping" {
			return nil
		}
		return peer.WriteMessage(websocket.TextMessage, []byte("pong "+payload))
	})
	for {
		kind, data, err := peer.ReadMessage()
		if err == nil {
			switch path {
			case "/echo":
				err = peer.WriteMessage(kind, data)
			case "/ping":
				err = gorillaControl(peer, websocket.PingMessage, data)
			case "/close":
				err = gorillaControl(peer, websocket.CloseMessage, websocket.FormatCloseMessage(3005, "that is all"))
			case "/fragments":
				third := len(data) / 3
				parts := []string{string(data[:third]), string(data[third : 2*third]), string(data[2*third:])}
				err = gorillaFragments(peer, kind, parts, "between")
			}
		}
		if err != nil {
			reportClosed(gorillaEnd(err))
			return
		}
	}
}
