package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// Streams that a server is asked for at a time: grpcio refuses some where a thousand wait for it.
const opening = 256

// Open streams that count what arrives and keep the last messages of each.
type watchers struct {
	mu      sync.Mutex
	arrived int
	last    float64
	wanted  int
	enough  chan float64
	failed  error
	streams []*stream
	offered int
	cancel  context.CancelFunc
}

type stream struct {
	recent [][]byte
	next   int
}

func open(ctx context.Context, connection *grpc.ClientConn, method string) (grpc.ClientStream, error) {
	description := grpc.StreamDesc{ServerStreams: true}
	incoming, err := connection.NewStream(ctx, &description, method)
	if err == nil {
		request := []byte{}
		err = incoming.SendMsg(&request)
	}
	if err == nil {
		err = incoming.CloseSend()
	}
	return incoming, err
}

func (w *watchers) read(ctx context.Context, connection *grpc.ClientConn, method string, s *stream, opened func()) {
	incoming, err := open(ctx, connection, method)
	var message []byte
	if err == nil {
		err = incoming.RecvMsg(&message)
	}
	opened()
	for err == nil {
		w.count(s, message)
		message = nil
		err = incoming.RecvMsg(&message)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() == nil && w.failed == nil {
		w.failed = err
	}
}

func (w *watchers) count(s *stream, message []byte) {
	at := now()
	w.mu.Lock()
	defer w.mu.Unlock()
	s.recent[s.next] = message
	s.next = (s.next + 1) % len(s.recent)
	w.arrived++
	w.last = at
	if w.arrived == w.wanted {
		w.enough <- at
	}
}

// Ask to be told, by until, when so many messages more have come.
func (w *watchers) expect(more int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.enough = make(chan float64, 1)
	w.wanted = w.arrived + more
}

// The same where some of them will never come, or came already.
func (w *watchers) less(fewer int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted -= fewer
	if fewer > 0 && w.arrived >= w.wanted {
		w.enough <- w.last
	}
}

// When they had come; how many are missing if they did not.
func (w *watchers) until(limit time.Duration) (float64, int) {
	select {
	case at := <-w.enough:
		return at, 0
	case <-time.After(limit):
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.last, w.wanted - w.arrived
	}
}

// Open streams over the connections and wait for the initial messages of each.
func (l *load) watch(c command) (result, error) {
	connections, err := l.connect(c.Target, "watches", c.Connections)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watchers{cancel: cancel}
	l.watchers[c.Target] = w
	w.expect(c.Count * c.Initial)
	room := make(chan struct{}, opening)
	for number := 0; number < c.Count; number++ {
		s := &stream{recent: make([][]byte, c.Initial+c.Recent)}
		w.streams = append(w.streams, s)
		room <- struct{}{}
		go w.read(ctx, connections[number%len(connections)], c.Method, s, func() { <-room })
	}
	if _, missing := w.until(giveUp); missing > 0 {
		return nil, fmt.Errorf("%d initial messages are missing: %v", missing, w.failed)
	}
	return result{}, nil
}

// Writes, each waiting until all streams have its event: the times from the write to the last of them.
func (l *load) propagate(c command) (result, error) {
	w := l.watchers[c.Target]
	connections, err := l.connect(c.Via, "writes", 1)
	if err != nil {
		return nil, err
	}
	durations := []float64{}
	for number := 0; number < c.Count; number++ {
		w.expect(c.Each)
		began := now()
		if _, err := call(connections[0], c.Method, c.Requests[number%len(c.Requests)]); err != nil {
			return nil, err
		}
		at, missing := w.until(giveUp)
		if missing > 0 {
			return nil, fmt.Errorf("%d events are missing: %v", missing, w.failed)
		}
		durations = append(durations, at-began)
	}
	return result{"durations": durations}, nil
}

// Writes one after the other without waiting for their events, then what missed says.
func (l *load) deliver(c command) (result, error) {
	w := l.watchers[c.Target]
	connections, err := l.connect(c.Via, "writes", 1)
	if err != nil {
		return nil, err
	}
	w.expect(c.Count * c.Each)
	for number := 0; number < c.Count; number++ {
		if _, err := call(connections[0], c.Method, c.Requests[number%len(c.Requests)]); err != nil {
			return nil, err
		}
	}
	return w.missed(connections[0], c)
}

// How many of the events that are expected never came, and on how many streams the recent messages do not
// have the state that Reads then answer.
func (w *watchers) missed(connection *grpc.ClientConn, c command) (result, error) {
	_, lost := w.until(5 * time.Second)
	var state [][]byte
	for _, request := range c.Reads {
		answer, err := call(connection, c.ReadMethod, request)
		if err != nil {
			return nil, err
		}
		state = append(state, answer[1:])
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	stale := 0
	for _, s := range w.streams {
		if !s.shows(state) {
			stale++
		}
	}
	return result{"lost": lost, "stale": stale}, nil
}

// The object is a message's last field, as it is the only one of an answer.
func (s *stream) shows(state [][]byte) bool {
	for _, object := range state {
		found := false
		for _, message := range s.recent {
			found = found || bytes.HasSuffix(message, object)
		}
		if !found {
			return false
		}
	}
	return true
}

func (l *load) unwatch(c command) (result, error) {
	l.watchers[c.Target].cancel()
	delete(l.watchers, c.Target)
	for _, connection := range l.connections[c.Target+" watches"] {
		connection.Close()
	}
	delete(l.connections, c.Target+" watches")
	return result{}, nil
}
