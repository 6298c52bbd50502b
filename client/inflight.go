package client

// InFlight returns how many batches are under way: sent to a server, and not
// answered.
func (p *Producer) InFlight() (batches int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := range p.underWay {
		batches += len(r.parts)
	}
	return batches
}
