package main

import (
	"sync"
	"time"
)

// Writes at a steady pace for Seconds, whether or not those before have been answered, but never more than
// Open at a time: a server that cannot keep up gets fewer. A write's time is from when it was due. Each is
// an event for Each streams. The requests go on where those of the last offer ended.
func (l *load) offer(c command) (result, error) {
	w := l.watchers[c.Target]
	connections, err := l.connect(c.Via, "offers", c.Connections)
	if err != nil {
		return nil, err
	}
	w.expect(c.Count * c.Each)
	var found findings
	var writes sync.WaitGroup
	room := make(chan struct{}, c.Open)
	written := 0
	began := time.Now()
	for ; written < c.Count; written++ {
		due := began.Add(time.Duration(float64(written) / c.PerSecond * 1e9))
		time.Sleep(time.Until(due))
		room <- struct{}{}
		if time.Since(began).Seconds() > c.Seconds {
			break
		}
		writes.Add(1)
		go func(number int) {
			defer writes.Done()
			_, err := call(connections[number%len(connections)], c.Method, c.Requests[number%len(c.Requests)])
			found.add([]float64{time.Since(due).Seconds()}, err)
			<-room
		}(w.offered)
		w.offered++
	}
	writes.Wait()
	seconds := time.Since(began).Seconds()
	if seconds < c.Seconds {
		seconds = c.Seconds
	}
	w.less((c.Count - written) * c.Each)
	took, err := found.quantiles(seconds)
	if err != nil {
		return nil, err
	}
	missed, err := w.missed(connections[0], c)
	if err != nil {
		return nil, err
	}
	took["written"], took["lost"], took["stale"] = written, missed["lost"], missed["stale"]
	return took, nil
}
