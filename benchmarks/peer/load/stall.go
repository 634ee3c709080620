package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The smallest, and one that does not grow with what arrives.
const window = 65535

const quiet = 2 * time.Second

// Open streams that nobody reads.
type stalled struct {
	resume chan struct{}
	ends   chan end
	cancel context.CancelFunc
}

// How many events a stream had, and how it ended; ours is one that was still open at the end.
type end struct {
	events int
	code   codes.Code
	ours   bool
}

func (s *stalled) read(ctx context.Context, connection *grpc.ClientConn, c command, ready chan<- error) {
	incoming, err := open(ctx, connection, c.Method)
	var message []byte
	for number := 0; err == nil && number < c.Initial; number++ {
		err = incoming.RecvMsg(&message)
	}
	ready <- err
	if err != nil {
		return
	}
	<-s.resume
	events := 0
	for err = incoming.RecvMsg(&message); err == nil; err = incoming.RecvMsg(&message) {
		events++
	}
	s.ends <- end{events, status.Code(err), ctx.Err() != nil}
}

// Open streams over connections of their own, take the initial messages of each and no more.
func (l *load) stall(c command) (result, error) {
	connections, err := l.connect(c.Target, "stalled", c.Connections, grpc.WithInitialWindowSize(window))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &stalled{make(chan struct{}), make(chan end, c.Count), cancel}
	l.stalled[c.Target] = s
	ready := make(chan error, c.Count)
	for number := 0; number < c.Count; number++ {
		go s.read(ctx, connections[number%len(connections)], c, ready)
	}
	for number := 0; number < c.Count; number++ {
		if err := <-ready; err != nil {
			return nil, err
		}
	}
	return result{}, nil
}

// Read again what waits: how many of Count streams the server has ended with RESOURCE_EXHAUSTED, and how
// many go on as if nothing had happened though events are missing, of Each that there were.
func (l *load) resume(c command) (result, error) {
	s := l.stalled[c.Target]
	close(s.resume)
	time.Sleep(quiet)
	s.cancel()
	told, silent := 0, 0
	for number := 0; number < c.Count; number++ {
		switch found := <-s.ends; {
		case found.ours && found.events < c.Each:
			silent++
		case found.code == codes.ResourceExhausted:
			told++
		}
	}
	delete(l.stalled, c.Target)
	return result{"told": told, "silent": silent}, nil
}
