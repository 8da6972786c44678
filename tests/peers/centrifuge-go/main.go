// The official Go SDK `centrifuge-go` as two clients of a real-time server.
// usage: centrifuge-go ADDRESS json|protobuf
// Reports JSON lines as report.mjs describes them.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

const channel = "chat:lobby"

// patience is the deadline of a single wait.
const patience = 30 * time.Second

var failed = false

func report(value map[string]string) {
	line, _ := json.Marshal(value)
	fmt.Println(string(line))
}

// check runs one case and reports how it ended; a failed case does not stop the others.
func check(name string, body func() error) {
	if err := body(); err != nil {
		failed = true
		report(map[string]string{"case": name, "error": err.Error()})
		return
	}
	report(map[string]string{"case": name})
}

// peer is a client with its subscription, and channels of what it waits for.
type peer struct {
	client       *centrifuge.Client
	subscription *centrifuge.Subscription
	publications chan []byte
	leaves       chan string
	subscribed   chan struct{}
	disconnected chan uint32
}

func newPeer(address string, encoding string) (*peer, error) {
	config := centrifuge.Config{MinReconnectDelay: 50 * time.Millisecond, MaxReconnectDelay: 200 * time.Millisecond}
	url := "ws://" + address + "/connection/websocket"
	client := centrifuge.NewJsonClient(url, config)
	if encoding == "protobuf" {
		client = centrifuge.NewProtobufClient(url, config)
	}
	subscription, err := client.NewSubscription(channel, centrifuge.SubscriptionConfig{
		Recoverable: true, JoinLeave: true, MinResubscribeDelay: 50 * time.Millisecond, MaxResubscribeDelay: 200 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	p := &peer{
		client:       client,
		subscription: subscription,
		publications: make(chan []byte, 100),
		leaves:       make(chan string, 100),
		subscribed:   make(chan struct{}, 100),
		disconnected: make(chan uint32, 100),
	}
	subscription.OnPublication(func(event centrifuge.PublicationEvent) { p.publications <- event.Data })
	subscription.OnLeave(func(event centrifuge.LeaveEvent) { p.leaves <- event.Client })
	subscription.OnSubscribed(func(centrifuge.SubscribedEvent) { p.subscribed <- struct{}{} })
	client.OnDisconnected(func(event centrifuge.DisconnectedEvent) { p.disconnected <- event.Code })
	return p, nil
}

// next waits for the next value.
func next[T any](values chan T, what string) (T, error) {
	select {
	case value := <-values:
		return value, nil
	case <-time.After(patience):
		var none T
		return none, errors.New("no " + what + " in time")
	}
}

// expectPublication waits for a publication with these bytes at each peer.
func expectPublication(peers []*peer, data []byte) error {
	for _, p := range peers {
		got, err := next(p.publications, "publication")
		if err != nil {
			return err
		}
		if !bytes.Equal(got, data) {
			return fmt.Errorf("got the publication %q, not %q", got, data)
		}
	}
	return nil
}

func main() {
	address, encoding := os.Args[1], os.Args[2]
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	ada, err := newPeer(address, encoding)
	if err != nil {
		panic(err)
	}
	bob, err := newPeer(address, encoding)
	if err != nil {
		panic(err)
	}
	both := []*peer{ada, bob}

	check("connect and subscribe", func() error {
		for _, p := range both {
			if err := errors.Join(p.client.Connect(), p.subscription.Subscribe()); err != nil {
				return err
			}
			if _, err := next(p.subscribed, "subscription"); err != nil {
				return err
			}
		}
		return nil
	})

	check("publish", func() error {
		data := []byte(`{"text":"Grüße, 世界 🐟","list":[1,null,true]}`)
		if _, err := ada.subscription.Publish(ctx, data); err != nil {
			return err
		}
		return expectPublication(both, data)
	})

	check("history", func() error {
		if _, err := bob.client.Publish(ctx, channel, []byte("2")); err != nil {
			return err
		}
		page, err := ada.subscription.History(ctx, centrifuge.WithHistoryLimit(1), centrifuge.WithHistoryReverse(true))
		if err != nil {
			return err
		}
		if len(page.Publications) != 1 || string(page.Publications[0].Data) != "2" || page.Offset != 2 {
			return fmt.Errorf("got the history %+v", page)
		}
		return expectPublication(both, []byte("2"))
	})

	check("presence", func() error {
		presence, err := ada.subscription.Presence(ctx)
		if err != nil {
			return err
		}
		stats, err := bob.subscription.PresenceStats(ctx)
		if err != nil {
			return err
		}
		if len(presence.Clients) != 2 || stats.NumClients != 2 {
			return fmt.Errorf("got the presence %+v and %+v", presence, stats)
		}
		return nil
	})

	check("call without a handler", func() error {
		_, err := ada.client.RPC(ctx, "no such method", []byte("{}"))
		var refused *centrifuge.Error
		if !errors.As(err, &refused) || refused.Code != 108 {
			return fmt.Errorf("got the error %v", err)
		}
		return nil
	})

	check("leave", func() error {
		if err := bob.subscription.Unsubscribe(); err != nil {
			return err
		}
		if _, err := next(ada.leaves, "leave"); err != nil {
			return err
		}
		stats, err := ada.subscription.PresenceStats(ctx)
		if err != nil {
			return err
		}
		if stats.NumClients != 1 {
			return fmt.Errorf("got the presence %+v", stats)
		}
		if err := bob.subscription.Subscribe(); err != nil {
			return err
		}
		_, err = next(bob.subscribed, "subscription")
		return err
	})

	check("resubscribe after a restart", func() error {
		report(map[string]string{"waiting": "restart"})
		for _, p := range both {
			if _, err := next(p.subscribed, "subscription"); err != nil {
				return err
			}
		}
		if _, err := ada.subscription.Publish(ctx, []byte(`"after the restart"`)); err != nil {
			return err
		}
		return expectPublication(both, []byte(`"after the restart"`))
	})

	check("disconnect", func() error {
		for _, p := range both {
			if err := p.client.Disconnect(); err != nil {
				return err
			}
			code, err := next(p.disconnected, "disconnect")
			if err != nil {
				return err
			}
			if code != 0 {
				return fmt.Errorf("got the code %d", code)
			}
		}
		return nil
	})

	if failed {
		os.Exit(1)
	}
}
