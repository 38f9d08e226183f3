"""The compiled core, from a call to its steps: layer (with the checks of arguments), network (layers, directions,
members of a team), forward / backward / gradients (the steps of one direction), and then one step, in cext/.

Beside them: kernels and blas (what C has), team (threads and their shares), ragged and packed_rows (rows of unequal
length), packed_weights, arena and memory (what is kept between calls), head (the linear head and its loss), updates
(optimisers), torch_layer (weights of torch's modules), interrupt (Ctrl-C).
"""
