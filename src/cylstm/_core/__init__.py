"""The compiled core, from a call to its steps: edge (checks), layer, network (layers, directions, members of a team),
forward / backward / gradients (the steps of one direction), and then one step, in cext/.

Beside them: kernels and blas (what C has), team (threads and their shares), ragged and reorder (rows of unequal
length), factors (packed weights), arena and memory (what is kept between calls), head (the linear head and its loss),
flat (optimisers), borrowed (weights of torch's modules), interrupt (Ctrl-C).
"""
