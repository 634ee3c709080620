// What a grpc-go client sees of a server: each line is a case and how it ended.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const service = "nvidia.device.v1alpha1.GpuService"

func say(name string, err error) { fmt.Println(name, status.Code(err)) }

func main() {
	dial := func(ctx context.Context, path string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	// The path becomes the request's :authority, as with any unix socket in grpc-go of that age.
	connect := func(path string) *grpc.ClientConn {
		connection, err := grpc.Dial(path, grpc.WithInsecure(), grpc.WithContextDialer(dial))
		if err != nil {
			panic(err)
		}
		return connection
	}
	connection := connect(os.Args[1])
	client := grpc_health_v1.NewHealthClient(connection)
	ofProviders := grpc_health_v1.NewHealthClient(connect(os.Args[2]))
	ctx, done := context.WithTimeout(context.Background(), 20*time.Second)
	defer done()

	checkBy := func(client grpc_health_v1.HealthClient, name string, options ...grpc.CallOption) error {
		_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: name}, options...)
		return err
	}
	check := func(name string, options ...grpc.CallOption) error {
		return checkBy(client, name, options...)
	}
	say("unary", check(service))
	say("error", check("no.such.Service"))
	say("large", check(strings.Repeat("x", 15<<10)))
	say("too-large", check(strings.Repeat("x", 17<<10)))
	say("large-of-providers", checkBy(ofProviders, strings.Repeat("x", 1<<20)))
	say("too-large-of-providers", checkBy(ofProviders, strings.Repeat("x", 5<<20)))
	say("compressed", check(service, grpc.UseCompressor(gzip.Name)))
	say("unknown-method", connection.Invoke(ctx, "/"+service+"/Nothing",
		&grpc_health_v1.HealthCheckRequest{}, &grpc_health_v1.HealthCheckResponse{}))

	watch := func(ctx context.Context) (grpc_health_v1.Health_WatchClient, error) {
		return client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	}
	short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	events, err := watch(short)
	if err == nil {
		_, err = events.Recv()
		say("watch", err)
		_, err = events.Recv()
	}
	say("deadline", err)
	stop()
	cancelled, cancel := context.WithCancel(ctx)
	events, err = watch(cancelled)
	if err == nil {
		_, err = events.Recv()
		cancel()
		_, err = events.Recv()
	}
	say("cancel", err)
	cancel()

	var all sync.WaitGroup
	failed := make(chan error, 500)
	for i := 0; i < 500; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			if err := check(service); err != nil {
				failed <- err
			}
		}()
	}
	all.Wait()
	close(failed)
	say("concurrent", <-failed)
}
