// The load client for every server, in a process of its own: bytes in, bytes out.
//
// It obeys commands that come as JSON lines on its input and answers each with a JSON line. Times are
// seconds of the monotonic clock, which all processes of a machine share.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

const giveUp = 60 * time.Second

// Messages are bytes already; the name is the codec's in the content-type.
type raw struct{}

func (raw) Name() string                            { return "proto" }
func (raw) Marshal(v interface{}) ([]byte, error)   { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v interface{}) error { *v.(*[]byte) = b; return nil }

// Paths and requests are those of the command; what a command does not use is empty.
type command struct {
	Command     string
	Target      string
	Via         string
	Method      string
	Requests    [][]byte
	ReadMethod  string `json:"read_method"`
	Reads       [][]byte
	Count       int
	Connections int
	Initial     int
	Each        int
	Recent      int
	Open        int
	Seconds     float64
	PerSecond   float64 `json:"per_second"`
	ReadsPerSec float64 `json:"reads_per_second"`
}

type load struct {
	connections map[string][]*grpc.ClientConn
	watchers    map[string]*watchers
	stalled     map[string]*stalled
}

type result map[string]interface{}

func now() float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return float64(t.Sec) + float64(t.Nsec)/1e9
}

func dial(target string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	path := strings.TrimPrefix(target, "unix:")
	return grpc.Dial("passthrough:///localhost", append(options, grpc.WithInsecure(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(1<<30)))...)
}

func (l *load) connect(target, use string, count int, options ...grpc.DialOption) ([]*grpc.ClientConn, error) {
	key := target + " " + use
	for len(l.connections[key]) < count {
		connection, err := dial(target, options...)
		if err != nil {
			return nil, err
		}
		l.connections[key] = append(l.connections[key], connection)
	}
	return l.connections[key][:count], nil
}

func (l *load) obey(c command) (result, error) {
	switch c.Command {
	case "once":
		return l.once(c)
	case "calls":
		return l.calls(c)
	case "paced":
		return l.paced(c)
	case "mixed":
		return l.mixed(c)
	case "watch":
		return l.watch(c)
	case "propagate":
		return l.propagate(c)
	case "deliver":
		return l.deliver(c)
	case "offer":
		return l.offer(c)
	case "stall":
		return l.stall(c)
	case "resume":
		return l.resume(c)
	case "unwatch":
		return l.unwatch(c)
	case "first_answer":
		return l.firstAnswer(c)
	}
	return nil, fmt.Errorf("unknown command %q", c.Command)
}

func main() {
	l := &load{
		connections: map[string][]*grpc.ClientConn{},
		watchers:    map[string]*watchers{},
		stalled:     map[string]*stalled{},
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var c command
		err := json.Unmarshal(lines.Bytes(), &c)
		var found result
		if err == nil {
			found, err = l.obey(c)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "load client: %s %s: %v\n", c.Command, c.Target, err)
			os.Exit(1)
		}
		if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
			os.Exit(1)
		}
	}
}
