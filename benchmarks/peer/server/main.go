// The peer: the same API as Go programs serve it. One lock guards the cache, every read gets a clone,
// every watcher has a channel of 100 events, and an event that finds no room is dropped.
//
// What it leaves out makes it cheaper, never dearer: who owns a condition, Ready, leases, the log of
// events, metrics.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/ptypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "peer/deviceapi"
)

const queuedEvents = 100

type cache struct {
	mu       sync.RWMutex
	gpus     map[string]*pb.Gpu
	names    []string
	version  int64
	watchers map[chan *pb.WatchGpusResponse]struct{}
}

func clone(gpu *pb.Gpu) *pb.Gpu { return proto.Clone(gpu).(*pb.Gpu) }

// With the lock held, as are all of the next three.
func (c *cache) changed(kind string, gpu *pb.Gpu) {
	c.version++
	gpu.ResourceVersion = c.version
	gpu.Metadata.ResourceVersion = strconv.FormatInt(c.version, 10)
	for events := range c.watchers {
		select {
		case events <- &pb.WatchGpusResponse{Type: kind, Object: clone(gpu)}:
		default:
		}
	}
}

func (c *cache) find(name string) (*pb.Gpu, error) {
	if gpu, ok := c.gpus[name]; ok {
		return gpu, nil
	}
	return nil, status.Errorf(codes.NotFound, "gpu %q not found", name)
}

func (c *cache) clones() []*pb.Gpu {
	items := make([]*pb.Gpu, 0, len(c.names))
	for _, name := range c.names {
		items = append(items, clone(c.gpus[name]))
	}
	return items
}

type gpuService struct {
	*pb.UnimplementedGpuServiceServer
	*cache
}

func (s gpuService) GetGpu(_ context.Context, r *pb.GetGpuRequest) (*pb.GetGpuResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	gpu, err := s.find(r.Name)
	if err != nil {
		return nil, err
	}
	return &pb.GetGpuResponse{Gpu: clone(gpu)}, nil
}

func (s gpuService) ListGpus(context.Context, *pb.ListGpusRequest) (*pb.ListGpusResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	meta := &pb.ListMeta{ResourceVersion: strconv.FormatInt(s.version, 10)}
	return &pb.ListGpusResponse{GpuList: &pb.GpuList{Metadata: meta, Items: s.clones()}}, nil
}

func (s gpuService) WatchGpus(_ *pb.WatchGpusRequest, stream pb.GpuService_WatchGpusServer) error {
	events := make(chan *pb.WatchGpusResponse, queuedEvents)
	s.mu.Lock()
	s.watchers[events] = struct{}{}
	present := s.clones()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, events)
		s.mu.Unlock()
	}()
	for _, gpu := range present {
		if err := stream.Send(&pb.WatchGpusResponse{Type: "ADDED", Object: gpu}); err != nil {
			return err
		}
	}
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case event := <-events:
			if err := stream.Send(event); err != nil {
				return err
			}
		}
	}
}

type providerService struct {
	*pb.UnimplementedProviderServiceServer
	*cache
}

func (s providerService) RegisterGpu(_ context.Context, r *pb.RegisterGpuRequest) (*pb.RegisterGpuResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.gpus[r.Name]; ok {
		return &pb.RegisterGpuResponse{ResourceVersion: known.ResourceVersion}, nil
	}
	gpu := &pb.Gpu{Metadata: &pb.ObjectMeta{Name: r.Name}, Spec: r.Spec, Status: &pb.GpuStatus{}}
	s.gpus[r.Name] = gpu
	s.names = append(s.names, r.Name)
	s.changed("ADDED", gpu)
	return &pb.RegisterGpuResponse{Created: true, ResourceVersion: gpu.ResourceVersion}, nil
}

func (s providerService) UpdateGpuCondition(_ context.Context, r *pb.UpdateGpuConditionRequest) (*pb.UpdateGpuConditionResponse, error) {
	if r.Name == "" || r.Condition == nil || r.Condition.Type == "" {
		return nil, status.Error(codes.InvalidArgument, "name and condition.type are required")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gpu, err := s.find(r.Name)
	if err != nil {
		return nil, err
	}
	condition := proto.Clone(r.Condition).(*pb.Condition)
	condition.ProviderId = r.ProviderId
	if condition.LastTransitionTime == nil {
		condition.LastTransitionTime = ptypes.TimestampNow()
	}
	set(gpu.Status, condition)
	s.changed("MODIFIED", gpu)
	return &pb.UpdateGpuConditionResponse{ResourceVersion: gpu.ResourceVersion}, nil
}

func set(to *pb.GpuStatus, condition *pb.Condition) {
	for i, known := range to.Conditions {
		if known.Type == condition.Type {
			to.Conditions[i] = condition
			return
		}
	}
	to.Conditions = append(to.Conditions, condition)
}

func main() {
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c := &cache{gpus: map[string]*pb.Gpu{}, watchers: map[chan *pb.WatchGpusResponse]struct{}{}}
	server := grpc.NewServer()
	pb.RegisterGpuServiceServer(server, gpuService{cache: c})
	pb.RegisterProviderServiceServer(server, providerService{cache: c})
	fmt.Fprintln(os.Stderr, server.Serve(listener))
	os.Exit(1)
}
