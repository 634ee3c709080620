package main

import (
	"context"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

func call(connection *grpc.ClientConn, method string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), giveUp)
	defer cancel()
	var response []byte
	err := connection.Invoke(ctx, method, &request, &response)
	return response, err
}

// One call; its response.
func (l *load) once(c command) (result, error) {
	connections, err := l.connect(c.Target, "calls", 1)
	if err != nil {
		return nil, err
	}
	response, err := call(connections[0], c.Method, c.Requests[0])
	return result{"response": response}, err
}

// What several goroutines found: how long each call took, and the first error.
type findings struct {
	mu        sync.Mutex
	durations []float64
	err       error
}

func (f *findings) add(durations []float64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.durations = append(f.durations, durations...)
	if f.err == nil {
		f.err = err
	}
}

func (f *findings) quantiles(seconds float64) (result, error) {
	if f.err != nil {
		return nil, f.err
	}
	sort.Float64s(f.durations)
	at := func(percent int) float64 { return f.durations[len(f.durations)*percent/100] }
	return result{"seconds": seconds, "p50": at(50), "p99": at(99)}, nil
}

// Calls by as many callers as connections, each waiting for its answer.
func (l *load) calls(c command) (result, error) {
	connections, err := l.connect(c.Target, "calls", c.Connections)
	if err != nil {
		return nil, err
	}
	var next int64
	var found findings
	var callers sync.WaitGroup
	began := now()
	for _, connection := range connections {
		callers.Add(1)
		go func(connection *grpc.ClientConn) {
			defer callers.Done()
			durations := make([]float64, 0, c.Count/len(connections))
			for {
				number := int(atomic.AddInt64(&next, 1)) - 1
				if number >= c.Count {
					found.add(durations, nil)
					return
				}
				began := time.Now()
				_, err := call(connection, c.Method, c.Requests[number%len(c.Requests)])
				if err != nil {
					found.add(durations, err)
					return
				}
				durations = append(durations, time.Since(began).Seconds())
			}
		}(connection)
	}
	callers.Wait()
	return found.quantiles(now() - began)
}

// Calls at a steady pace, whether or not those before have been answered.
func pace(connection *grpc.ClientConn, method string, requests [][]byte, count int, perSecond float64) *findings {
	var found findings
	var open sync.WaitGroup
	began := time.Now()
	for number := 0; number < count; number++ {
		time.Sleep(time.Until(began.Add(time.Duration(float64(number) / perSecond * 1e9))))
		open.Add(1)
		go func(request []byte) {
			defer open.Done()
			began := time.Now()
			_, err := call(connection, method, request)
			found.add([]float64{time.Since(began).Seconds()}, err)
		}(requests[number%len(requests)])
	}
	open.Wait()
	return &found
}

func (l *load) paced(c command) (result, error) {
	connections, err := l.connect(c.Target, "paced", 1)
	if err != nil {
		return nil, err
	}
	began := now()
	found := pace(connections[0], c.Method, c.Requests, c.Count, c.PerSecond)
	return found.quantiles(now() - began)
}

// Reads beside writes, both paced; the times are the reads'.
func (l *load) mixed(c command) (result, error) {
	readers, err := l.connect(c.Target, "paced", 1)
	if err != nil {
		return nil, err
	}
	writers, err := l.connect(c.Via, "writes", 1)
	if err != nil {
		return nil, err
	}
	written := make(chan *findings)
	go func() {
		count := int(float64(c.Count) / c.ReadsPerSec * c.PerSecond)
		written <- pace(writers[0], c.Method, c.Requests, count, c.PerSecond)
	}()
	began := now()
	found := pace(readers[0], c.ReadMethod, c.Reads, c.Count, c.ReadsPerSec)
	found.add(nil, (<-written).err)
	return found.quantiles(now() - began)
}

// When a server that is just starting answered for the first time.
func (l *load) firstAnswer(c command) (result, error) {
	ends := now() + giveUp.Seconds()
	for {
		connection, err := dial(c.Target)
		if err != nil {
			return nil, err
		}
		_, err = call(connection, c.Method, nil)
		at := now()
		connection.Close()
		if err == nil || at > ends {
			return result{"at": at}, err
		}
		time.Sleep(time.Millisecond)
	}
}
