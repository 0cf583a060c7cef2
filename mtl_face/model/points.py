"""Points of the face mesh as tokens: one for each small region of the face.

Shapes: B batch, V points, G regions (26), K points of a region (18), C coordinates (3, and 3 of the
change), D width of the embedding.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtl_face.config import ModelConfig
from mtl_face.model.transformer import at_least_float32

_REGIONS = """
27 28 52 53 55 63 65 66 67 69 104 105 107 108 109 222 223 224
22 23 26 29 56 128 157 158 159 188 189 190 193 221 232 233 244 245
36 47 49 100 101 114 120 121 126 131 134 142 174 198 209 217 231 236
21 30 46 54 68 70 71 103 113 124 139 156 160 161 162 225 246 247
7 24 50 110 112 118 119 133 144 145 153 154 155 163 173 229 230 243
25 31 33 34 35 93 111 116 117 123 127 130 137 143 226 227 228 234
8 9 10 151 257 282 283 285 295 296 297 299 334 336 337 338 442 443
6 122 168 196 197 258 277 343 350 351 357 399 412 413 417 419 441 465
3 4 5 51 195 248 266 279 281 329 355 360 363 371 420 429 437 456
259 260 276 286 293 333 362 384 385 386 387 388 398 414 444 445 466 467
249 251 263 264 265 284 298 300 301 332 342 353 356 359 368 383 389 446
252 253 254 256 330 341 348 349 373 374 380 381 450 451 452 453 463 464
255 261 280 323 339 340 345 346 347 352 366 372 382 390 447 448 449 454
44 45 48 59 64 79 102 115 129 166 203 218 219 220 235 237 238 239
20 37 39 40 60 72 75 92 97 98 99 125 141 165 167 240 241 242
38 41 42 73 74 80 81 82 84 85 86 87 89 90 178 179 180 181
77 83 88 91 95 96 106 146 182 183 184 185 186 191 201 205 206 208
57 58 61 62 76 78 132 138 147 177 187 192 207 212 213 214 215 216
32 43 135 136 140 148 149 150 169 170 171 172 176 194 202 204 210 211
1 274 275 278 289 294 305 309 331 344 392 438 439 440 455 457 458 459
0 2 19 94 164 250 267 290 326 327 328 354 370 391 393 460 461 462
11 12 13 14 15 16 17 268 269 271 302 303 312 314 315 316 317 404
270 272 304 308 310 311 322 324 358 407 408 409 410 415 423 425 426 436
18 199 200 307 313 318 319 320 321 325 335 375 402 403 405 406 421 428
273 287 288 291 292 306 361 367 376 397 401 411 416 427 432 433 434 435
152 175 262 364 365 369 377 378 379 394 395 396 400 418 422 424 430 431
"""

REGIONS = np.array([line.split() for line in _REGIONS.split("\n")[1:-1]], np.int32)
"""Points of each region, int32 [G, K]: the mean face is cut in two across its longest axis, and so
is each part, until all are of one size. Each point is in one region."""

_POSITION_STD, _KNOWN_STD = 0.5, 0.02


class PointTokens(nn.Module):
    """A linear map for each of `REGIONS`, of its points and of what they differ from the baseline.

    Added to each token are a learned position, and one more where the baseline is known.
    """

    settings: ModelConfig

    @nn.compact
    def __call__(self, points_BV3: jax.Array, baseline_BV3: jax.Array) -> jax.Array:
        """Makes tokens [B, G, D] of the compute dtype of points and baseline [B, V, 3].

        A baseline that is all 0 is not known: the change is then taken to be 0.
        """
        settings = self.settings
        dtype = at_least_float32(settings.compute_dtype)
        compute_dtype = jnp.dtype(settings.compute_dtype)
        points_BV3, baseline_BV3 = points_BV3.astype(dtype), baseline_BV3.astype(dtype)
        known_B11 = jnp.any(baseline_BV3 != 0, axis=(1, 2), keepdims=True).astype(dtype)
        change_BV3 = known_B11 * (points_BV3 - baseline_BV3)
        both_BVC = jnp.concatenate([points_BV3, change_BV3], axis=-1) / settings.points.unit
        count, size = REGIONS.shape
        region_BGX = both_BVC[:, REGIONS].reshape(len(points_BV3), count, 6 * size)
        shape = (count, settings.embed_dim)

        def parameter(name: str, std: float, *shape: int) -> jax.Array:
            return self.param(name, nn.initializers.normal(std), shape).astype(compute_dtype)

        kernel_GXD = parameter("kernel", (3 * size) ** -0.5, count, 6 * size, settings.embed_dim)
        token_BGD = jnp.einsum("bgx,gxd->bgd", region_BGX.astype(compute_dtype), kernel_GXD)
        position_GD = parameter("position", _POSITION_STD, *shape)
        known_GD = parameter("known", _KNOWN_STD, *shape)
        return token_BGD + position_GD[None] + known_B11.astype(compute_dtype) * known_GD[None]
