package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// initProducerID gives an idempotent producer an id that nobody had before, at
// epoch 0. From version 3 on a producer may say which id it had; without a
// transactional id Kafka gives it a new one all the same, and so does this: whose
// an id is, nobody could tell.
func (s *Server) initProducerID(ctx context.Context, p *peer, req *kmsg.InitProducerIDRequest) kmsg.Response {
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.Version = req.Version
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	producer, err := s.newProducer(ctx, req)
	if err != nil {
		resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = p.error(err), -1, -1
		return resp
	}
	resp.ProducerID, resp.ProducerEpoch = producer.ID, int16(producer.Epoch)
	return resp
}

func (s *Server) newProducer(ctx context.Context, req *kmsg.InitProducerIDRequest) (broker.Producer, *errcode.Error) {
	switch {
	case req.Version >= 3 && (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		return broker.Producer{}, errcode.Errorf(errcode.InvalidRequest, "producer id %d with epoch %d; give both or neither", req.ProducerID, req.ProducerEpoch)
	case req.TransactionalID != nil && *req.TransactionalID == "":
		return broker.Producer{}, errcode.Errorf(errcode.InvalidRequest, "an empty transactional id")
	case req.TransactionalID != nil:
		return broker.Producer{}, errcode.Errorf(errcode.TransactionalIDAuthorizationFailed,
			"transactions are not served by this version; produce without a transactional id")
	}
	producer, failed := s.broker.InitProducer(ctx, broker.Producer{ID: -1})
	err := coded(failed)
	if err != nil && (err.Code == errcode.RequestTimedOut || err.Code == errcode.NotController || err.Code == errcode.LeaderNotAvailable) {
		// Older clients take a time-out for the producer's end, as Kafka's
		// ProducerIdManager says.
		err = &errcode.Error{Code: errcode.CoordinatorLoadInProgress, Detail: err.Detail}
	}
	return producer, err
}
